"""The story that `make demo` tells: a shop behind the gateway, a payment provider behind its egress listener."""
