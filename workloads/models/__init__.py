"""Models: NAME.py holds the configuration, NAME_torch.py and NAME_jax.py the two programs, in the same order.

Each framework file has `program(config)`; the JAX one also `from_torch(state_dict)`, the one map of weights.
"""
