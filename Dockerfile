# Two images: `api` without torch (it also runs housekeeping and migrations), and `worker`,
# which trains and serves. docker-compose.yml starts them. `worker-gguf` is a worker that also
# exports GGUF: its llama.cpp is compiled for 10 minutes, for any x86-64 processor with AVX2.
#
#     docker build --target api -t tunesmith-api .
#     docker build --target worker -t tunesmith-worker .
#     docker build --target worker-gguf -t tunesmith-worker .

FROM python:3.11-slim AS base
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PATH=/srv/venv/bin:$PATH
# bubblewrap makes the sandbox of Python graders; Debian's stable version, which gets its fixes.
# The image comes without compiled modules, and a sandbox could not store any: each grader would
# compile all that it imports.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends bubblewrap \
    && rm -rf /var/lib/apt/lists/* \
    && python -m compileall -q -x '/(site-packages|test|tests|idlelib|lib2to3)/' \
        /usr/local/lib/python3.11
# A new volume takes over the owner of the folder that it is mounted on.
RUN useradd --uid 10001 --user-group --create-home --home-dir /var/lib/tunesmith tunesmith \
    && install --directory --owner=tunesmith --group=tunesmith \
        /var/lib/tunesmith/storage /var/lib/tunesmith/work \
        /var/lib/tunesmith/engine /var/lib/tunesmith/huggingface

# Dependencies first: without our packages beside it, pyproject.toml installs nothing else, and
# the layer stays valid until a dependency changes.
FROM base AS api-dependencies
WORKDIR /build
RUN python -m venv /srv/venv
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN pip install --no-cache-dir -c constraints.txt .

FROM api-dependencies AS worker-dependencies
RUN pip install --no-cache-dir -c constraints.txt ".[train]"

FROM api-dependencies AS api-build
COPY api ./api
COPY cli ./cli
COPY core ./core
COPY migrations ./migrations
COPY worker ./worker
RUN pip install --no-cache-dir --no-deps --force-reinstall .

FROM worker-dependencies AS worker-build
COPY api ./api
COPY cli ./cli
COPY core ./core
COPY migrations ./migrations
COPY worker ./worker
RUN pip install --no-cache-dir --no-deps --force-reinstall .

# The library as a wheel, and the converters, which pip does not install. One package has both.
FROM worker-dependencies AS llama-cpp
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential \
    && rm -rf /var/lib/apt/lists/*
ENV CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_OPENMP=OFF"
RUN pip download --no-cache-dir --no-deps --no-binary llama-cpp-python -c constraints.txt \
        llama-cpp-python \
    && pip wheel --no-cache-dir --no-deps --wheel-dir /srv/wheels ./llama_cpp_python-*.tar.gz \
    && mkdir sources /srv/llama.cpp \
    && tar -xzf llama_cpp_python-*.tar.gz -C sources --strip-components=3 --wildcards \
        '*/vendor/llama.cpp/*' \
    && mv sources/convert_*_to_gguf.py sources/conversion sources/gguf-py /srv/llama.cpp/

FROM worker-build AS gguf-build
COPY --from=llama-cpp /srv/wheels /srv/wheels
RUN pip install --no-cache-dir -c constraints.txt --find-links /srv/wheels "tunesmith[gguf]"

FROM base AS worker-process
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    HF_HOME=/var/lib/tunesmith/huggingface
USER 10001
WORKDIR /var/lib/tunesmith
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
    CMD ["python", "-m", "worker.health"]
CMD ["python", "-m", "worker"]

FROM worker-process AS worker
COPY --from=worker-build /srv/venv /srv/venv

FROM worker-process AS worker-gguf
COPY --from=gguf-build /srv/venv /srv/venv
COPY --from=llama-cpp /srv/llama.cpp /srv/llama.cpp
ENV TUNESMITH_LLAMA_CPP=/srv/llama.cpp

FROM base AS api
COPY --from=api-build /srv/venv /srv/venv
USER 10001
WORKDIR /var/lib/tunesmith
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
CMD ["python", "-m", "api"]
