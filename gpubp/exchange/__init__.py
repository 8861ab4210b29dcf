"""Networks in the formats of others: safetensors in and out, ONNX out, PyTorch modules in and out."""
