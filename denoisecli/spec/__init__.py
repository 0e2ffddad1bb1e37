"""The JSON spec of a model: its sections as pydantic models, validation and search space.

- `document`: the whole spec; parsing, reading and writing it
- `network`: the sections that describe the network
- `training`: the sections that describe the training
- `search`: the section that describes the search of `denoise tune`
- `search_space`: fields of a spec by their paths
- `errors`: validation errors as sentences
- `schema`: types and ranges of a JSON Schema in words

This room imports only `denoisecli.errors`. `denoisecli.models.catalogue` finds specs by name.
"""
