"""The models: U-Net, its layers, trained model folders, bundled specs, export.

- `catalogue`: bundled and local specs and models by name
- `folder`: the folder of a trained model, written and read here only
- `registry`: model classes by name; build the network of a spec, load a trained one
- `network`: the base class of all networks
- `unet`: the U-Net; `layers`, `recurrence`, `attention`, `normalization`: its layers; `ops`: shared
  tensor operations
- `traits`, `reach`: what export and summary need to know about a layer; `summary`: a network in
  figures
- `export/`: networks for other programs
- `specs/`, `pretrained/`: bundled specs and trained models; `spec.schema.json`: schema of specs

To add a layer, write a class that inherits from `traits.Traits` and `keras.layers.Layer`, with the
methods `onnx_nodes`, `reach` and `stream_nodes` if it looks at other frames, and `macs_per_output`
if it computes sums of products, and decorate it with `layers.register`. To use another layer of
Keras, add its traits to `traits`. A model class is a subclass of `network.MaskNetwork`:
docs/new-model.md shows how to use one without a change of this package; to bundle it, add it to
`registry.CLASSES` and to `Spec.model`.

This room imports `spec`, `system` and `errors`. `catalogue`, `folder` and `registry` import Keras
and ONNX only inside the functions that need them.
"""
