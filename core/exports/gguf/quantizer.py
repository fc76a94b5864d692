"""Quantizes a GGUF file with llama.cpp's library, in a process of its own.

python -m core.exports.gguf.quantizer <in> <out> <threads>
"""

import sys

import llama_cpp


def main(arguments: list[str]) -> None:
    source, out, threads = arguments
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.nthread = int(threads)
    parameters.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M
    if llama_cpp.llama_model_quantize(source.encode(), out.encode(), parameters):
        raise SystemExit("llama.cpp cannot quantize this model; its reason is above.")


if __name__ == "__main__":
    main(sys.argv[1:])
