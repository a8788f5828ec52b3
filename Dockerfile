# The nightly job: only infer/ and the runtime's locked dependencies. No torch, no scikit-learn.
#   docker build -t lympho-infer .                      CPU
#   docker build --build-arg CUDA=1 -t lympho-infer .   with the CUDA 13 libraries (driver >= 580)
#   docker build --build-arg RAY=1 -t lympho-infer .    with Ray, for --ray; together with CUDA=1, too
# BASE_IMAGE is any image with Python 3.11 and its venv module; `make pin-base` adds the digest that its tag has.
# Two builds of the same files with one SOURCE_DATE_EPOCH on one base give the same layers.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
ARG CUDA=0
ARG RAY=0
COPY infer/requirements*.txt /tmp/
# No .pyc here: they would hold the time of the installation.
RUN python3 -m venv /opt/lympho \
 && lock=requirements && if [ "$CUDA" = 1 ]; then lock=$lock-cuda; fi && if [ "$RAY" = 1 ]; then lock=$lock-ray; fi \
 && /opt/lympho/bin/python -m pip install --no-cache-dir --disable-pip-version-check --no-compile --require-hashes \
    --report /tmp/installed.json -r /tmp/$lock.txt \
 && /opt/lympho/bin/python -m pip uninstall --quiet --yes setuptools pip
COPY infer /app/infer
COPY export /tmp/build/export
ARG BASE_IMAGE
ARG SOURCE_DATE_EPOCH=0
# The SBOM of what is there by now; a damaged bundle must not get into an image, and ends it here. Then .pyc that are
# never compared with their source, and one time and one mode for every file. Packages have the same time in every
# commit: a builder's cache may take their layer from another one, without a look at times.
RUN PYTHONPATH=/app:/tmp/build PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0 /opt/lympho/bin/python -m export.supply.sbom \
    /app/sbom.cdx.json --report /tmp/installed.json --bundle /app/infer/reference --base "$BASE_IMAGE" \
    --epoch "$SOURCE_DATE_EPOCH" \
 && find /opt/lympho -name __pycache__ -prune -exec rm -rf {} + \
 && PYTHONHASHSEED=0 /opt/lympho/bin/python -m compileall -q --invalidation-mode unchecked-hash \
    /opt/lympho/lib /app \
 && mkdir -p /packages/opt /program \
 && mv /opt/lympho /packages/opt/lympho \
 && mv /app /program/app \
 && chmod -R u=rwX,go=rX /packages /program \
 && find /packages -exec touch --no-dereference --date=1980-01-01T00:00:00Z {} + \
 && find /program -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

FROM ${BASE_IMAGE}
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="lympho-infer" \
      org.opencontainers.image.description="Scores folders of patients: reactive or malignant lymphocytosis. Not a medical device." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
# Whole trees into the root: a folder that COPY itself has to make gets the time of the build.
COPY --from=build /packages/ /
COPY --from=build /program/ /
ENV PATH=/opt/lympho/bin:$PATH \
    OPENBLAS_NUM_THREADS=1 \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONUTF8=1
USER 10001:10001
ENTRYPOINT ["/opt/lympho/bin/python", "-m", "infer"]
