# xelvad without a GPU. Run from the repository's root:
#
#   docker build --file docker/cpu.Dockerfile --tag xelvad:cpu \
#     --build-arg TORCH_INDEX_URL=<the CPU wheel index named on pytorch.org> .
#
# Build arguments, both empty by default:
#   TORCH_INDEX_URL  where torch and torchvision come from. Empty: pip's default index, whose Linux wheels are CUDA
#                    builds; they work here too, but make the image several gigabytes larger.
#   WEIGHTS          pretrained weights to bake in, for machines without a network: WEIGHTS=i3d-rgb-kinetics400.

# Python 3.11 is what the tests run with. No system packages are needed, libgl neither: the wheels bring their decoders.
FROM python:3.11-slim-bookworm AS build
ENV PATH=/opt/xelvad/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python -m venv /opt/xelvad

# What changes least comes first, so that an edited module costs seconds: torch, the other dependencies, the package.
ARG TORCH_INDEX_URL=""
COPY constraints.txt ./
RUN pip install --constraint constraints.txt ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} torch torchvision \
    && python -c "import torch; torch.version.cuda and print('NOTE: a CUDA build of torch; set TORCH_INDEX_URL')"

COPY pyproject.toml ./
# OpenVINO is the fastest runtime on CPUs; Ray is for compose.yaml.
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
      extras = p['optional-dependencies']; \
      print(*p['dependencies'], *extras['openvino'], *extras['cluster'], sep='\n')" > requirements.txt \
    && pip install --constraint constraints.txt --requirement requirements.txt

COPY . ./
RUN pip install --no-deps . && pip check && xelvad --version

ARG WEIGHTS=""
RUN mkdir -p /cache/weights \
    && if [ -n "$WEIGHTS" ]; then XELVAD_CACHE=/cache xelvad weights fetch "$WEIGHTS"; fi \
    && chmod -R a+rX /cache


FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="xelvad" \
      org.opencontainers.image.description="Weakly supervised video anomaly detection, on the CPU" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 1000 --create-home xelvad && install -d -o xelvad -g xelvad /data
COPY --from=build /opt/xelvad /opt/xelvad
COPY --from=build /cache /cache
# `--user` may name anybody, so that results belong to whoever asked for them: everybody may add weights, like in /tmp.
RUN chmod 1777 /cache /cache/weights
ENV PATH=/opt/xelvad/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1 \
    XELVAD_CACHE=/cache
USER 1000:1000
WORKDIR /data
# As process 1, Python ignores the usual SIGTERM; on SIGINT it stops and keeps what is finished.
STOPSIGNAL SIGINT
ENTRYPOINT ["xelvad"]
CMD ["--help"]
