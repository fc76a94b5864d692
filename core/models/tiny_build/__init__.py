"""How `core/models/tiny` is made, from text that ships with Python itself."""
