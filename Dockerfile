# Two images on one base. From the root of the repository:
#   docker build -t mind .                                           one machine, CPU: docs/cluster.md, "In a container"
#   docker build --target cluster -t REGISTRY/mind:0.1.0-cpu .       head, workers, jobs and MLflow server of jobs/kuberay
#   docker build --target cluster -t REGISTRY/mind:0.1.0-gpu --build-arg TORCH_INDEX= .      (CUDA, from PyPI)
FROM python:3.11.14-slim-bookworm AS base
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# procps is Ray's `ray stop` and py-spy's, wget that of KubeRay's probes; Debian keeps no old versions to pin
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends wget procps && rm -rf /var/lib/apt/lists/*
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV TORCH_INDEX=$TORCH_INDEX PIP_NO_CACHE_DIR=1 PATH=/opt/mind/bin:$PATH
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY mind mind
COPY mind_core mind_core
COPY pipelines pipelines
COPY jobs jobs
RUN bash jobs/clusters/install.sh /opt/mind 'ray[serve]' && useradd --uid 1000 --create-home ray
COPY conf conf

FROM base AS cluster
RUN bash jobs/clusters/install.sh /opt/mind boto3 'psycopg[binary]'
USER 1000

FROM base AS machine
USER 1000
WORKDIR /work
ENTRYPOINT ["mind"]
CMD ["--help"]
