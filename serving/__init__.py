"""The serving layer: the Triton server, its engine, deployments and the gRPC client pool."""
