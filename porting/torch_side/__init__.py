"""The other network: torchvision's, the user's, or one built after a spec, and its seeded weights.

torch and torchvision are imported in functions, but by `torch_model`.
"""
