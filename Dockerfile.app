# App: serves the model that the init container published on the shared volume. The image has no cloud SDK.
#   docker build -f Dockerfile.app -t modelserve .
ARG PYTHON_IMAGE=docker.io/library/python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
# pip installs into the environment from outside: the image has no pip.
RUN python -m venv --without-pip /opt/venv
COPY requirements/ requirements/
RUN pip --python /opt/venv install --no-cache-dir --no-compile --require-hashes --no-deps -r requirements/app.txt \
    && pip install --no-cache-dir --root-user-action=ignore --require-hashes --no-deps -r requirements/build.txt \
    && python -m compileall -q -j 0 --invalidation-mode unchecked-hash -x '/tests/' /opt/venv
COPY pyproject.toml README.md LICENSE ./
COPY src/ src/
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir dist . \
    && pip --python /opt/venv install --no-cache-dir --no-compile --no-deps dist/*.whl \
    && python -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib/python3*/site-packages/model*

FROM ${PYTHON_IMAGE}
# The base image's standard library has no bytecode, or bytecode tied to file times (hence -f), and Python cannot cache
# bytecode on a read-only root: compilation here makes every start faster. pip is removed: the image installs nothing.
RUN python -m compileall -q -f -j 0 --invalidation-mode unchecked-hash \
      -x '/(site-packages|test|idlelib|tkinter|turtledemo|ensurepip|pydoc_data|lib2to3)/' /usr/local/lib/python3* \
    && python -m pip uninstall --yes --quiet --root-user-action=ignore pip
COPY --from=build /opt/venv /opt/venv
ARG VERSION=dev
LABEL org.opencontainers.image.title="modelserve" \
      org.opencontainers.image.description="Serves a model from a volume over HTTP, after a check against the model's receipt" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
# One thread per request: BLAS and OpenMP count the host's cores and ignore the container's CPU limit.
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 MODELSERVE_HOST=0.0.0.0 OMP_NUM_THREADS=1
# A numeric id: Kubernetes' runAsNonRoot cannot check a name.
USER 65532:65532
EXPOSE 8000
# A SIGTERM before Python's handlers stand would be lost on PID 1; env keeps the signal pending until they do.
ENTRYPOINT ["env", "--block-signal=TERM,INT", "modelserve"]
