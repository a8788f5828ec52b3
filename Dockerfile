# The nightly job: only infer/ and the runtime's locked dependencies. No torch, no scikit-learn.
#   docker build -t lympho-infer .                      CPU
#   docker build --build-arg CUDA=1 -t lympho-infer .   with the CUDA 13 libraries (driver >= 580)
#   docker build --build-arg RAY=1 -t lympho-infer .    with Ray, for --ray; together with CUDA=1, too
# BASE_IMAGE is any image with Python 3.11 and its venv module.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
ARG CUDA=0
ARG RAY=0
COPY infer/requirements*.txt /tmp/
RUN python3 -m venv /opt/lympho \
 && lock=requirements && if [ "$CUDA" = 1 ]; then lock=$lock-cuda; fi && if [ "$RAY" = 1 ]; then lock=$lock-ray; fi \
 && /opt/lympho/bin/python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes -r /tmp/$lock.txt \
 && /opt/lympho/bin/python -m pip uninstall --quiet --yes setuptools pip

FROM ${BASE_IMAGE}
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="lympho-infer" \
      org.opencontainers.image.description="Scores folders of patients: reactive or malignant lymphocytosis. Not a medical device." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=build /opt/lympho /opt/lympho
COPY infer /app/infer
ENV PATH=/opt/lympho/bin:$PATH \
    OPENBLAS_NUM_THREADS=1 \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONUTF8=1
USER 10001:10001
# A damaged bundle must not get into an image.
RUN ["/opt/lympho/bin/python", "-c", "from infer.bundle.load import REFERENCE, load_bundle; load_bundle(REFERENCE)"]
ENTRYPOINT ["/opt/lympho/bin/python", "-m", "infer"]
