"""The Open Inference Protocol with Triton's extensions; what is generated here comes from protos/."""
