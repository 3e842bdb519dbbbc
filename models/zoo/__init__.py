"""The model zoo behind `export_onnx_model.py`: data, networks, training and export."""
