"""The web page: pipelines tried on pictures in a browser. ``restorekit.web.server.serve`` starts it.

Needs Gradio, the extra ``web``. What is made is made by the code of ``restorekit run``, from the YAML that is shown.
"""
