# xelvad on NVIDIA GPUs. Run from the repository's root:
#
#   docker build --file docker/cuda.Dockerfile --tag xelvad:cuda .
#   docker run --rm --gpus all xelvad:cuda --help
#
# The host needs an NVIDIA driver and the NVIDIA Container Toolkit, nothing else of CUDA. torch's wheels bring their own
# CUDA, cuDNN and NCCL, so that an image with CUDA inside would hold all of it twice: a slim Python image does. What no
# wheel can bring is the driver's library (libcuda.so), which must match the host's kernel module; the container runtime
# mounts it when it is asked to, by the two NVIDIA_ variables below.
#
# Build arguments, both empty by default:
#   TORCH_INDEX_URL  where torch and torchvision come from. Empty: pip's default index. For older drivers, an index of
#                    wheels for an older CUDA, as named on pytorch.org.
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
    && python -c "import torch; assert torch.version.cuda, 'a CPU build of torch; see TORCH_INDEX_URL'"

COPY pyproject.toml ./
RUN python -c "import tomllib as t; print(*t.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
      > requirements.txt \
    && pip install --constraint constraints.txt --requirement requirements.txt

COPY . ./
RUN pip install --no-deps . && pip check && xelvad --version

ARG WEIGHTS=""
RUN mkdir -p /cache/weights \
    && if [ -n "$WEIGHTS" ]; then XELVAD_CACHE=/cache xelvad weights fetch "$WEIGHTS"; fi \
    && chmod -R a+rX /cache


FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="xelvad" \
      org.opencontainers.image.description="Weakly supervised video anomaly detection, on NVIDIA GPUs" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 1000 --create-home xelvad && install -d -o xelvad -g xelvad /data
COPY --from=build /opt/xelvad /opt/xelvad
COPY --from=build /cache /cache
# `--user` may name anybody, so that results belong to whoever asked for them: everybody may add weights, like in /tmp.
RUN chmod 1777 /cache /cache/weights
# Which GPUs and which parts of the driver the container runtime mounts: all; CUDA and nvidia-smi. Not `video`: the CPU
# decodes the frames. `docker run --gpus` and a cluster's device plug-in narrow the first down.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PATH=/opt/xelvad/bin:$PATH \
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
