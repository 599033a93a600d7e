"""Model files in other runtimes' formats, each proved by running it and comparing its outputs.

`exporter.export_model` does it all. The parent process imports no framework: `export_child` exports
on the backend that can, `runtimes` runs the exported file, `nncf_child` quantises for OpenVINO.
Imports `models` and `data`.
"""
