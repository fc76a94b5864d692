"""The limits of an uploaded adapter. They hold before anything is read into memory."""

MAX_FILES = 256
MAX_NAME_LENGTH = 200
MAX_DEPTH = 8
"""Folders in the path of a file."""
MAX_BYTES = 16 * 2**30
"""Of all files together, unpacked."""
MAX_TEXT_BYTES = 64 * 2**20
"""Of one file that is not weights; a tokenizer of a large vocabulary has 20 MiB."""
MAX_CONFIG_BYTES = 2**20
"""Of `adapter_config.json`."""
FREE_BYTES = 2**20
"""Below this size a file may be compressed as well as it likes."""
MAX_RATIO = 100
"""Of the unpacked to the packed size; trained weights reach 1.2, tokenizers 10."""
MAX_HEADER_BYTES = 16 * 2**20
"""Of the header of a safetensors file."""
MAX_TENSORS = 20_000
MAX_DIMENSIONS = 4
MAX_TENSOR_NAME = 512
CHUNK_BYTES = 2**20
