"""An embedded server with TensorFlow Serving's REST API, for one model directory."""

from serving.server.run import model_name, running, serve

__all__ = ["model_name", "running", "serve"]
