"""A web page and an HTTP API that clean recordings; ``denoise serve`` starts them.

- ``server``: binds the port, opens the browser, runs the application until a signal ends it
- ``app``: the ASGI application: its routes, limits and answers
- ``answers``: errors as answers, and files that are removed once they are sent
- ``guard``: checks Host, Origin and token of every request, and sets the security headers
- ``uploads``: writes a multipart upload to disk as it arrives
- ``jobs``: the queue, the worker processes, and the folder of each job
- ``work``: the functions that a worker process runs
- ``preview``: writes what the page shows and plays of a recording
- ``rendering``: results as files at a strength and in a format, one by one or as an archive
- ``schema``: the OpenAPI document of the API
- ``page``: the files of the page in ``page/``: plain HTML, CSS and JavaScript

It may import ``evaluation``, ``cleaning``, ``models``, ``audio``, ``spec``, ``system``, ``errors``
and ``types``. Starlette, uvicorn and python-multipart come with the extra ``serve``.
"""
