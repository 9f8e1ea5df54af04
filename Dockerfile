# Two stages: wheels are installed with their hashes in the first; the second has Python, the packages and no pip.
ARG PYTHON_IMAGE=python:3.13.9-slim-bookworm
FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
COPY requirements/ requirements/
RUN python -m venv --without-pip /opt/pangate \
 && pip install --no-cache-dir --require-hashes -r requirements/build.txt \
 && pip --python /opt/pangate/bin/python install --no-cache-dir --require-hashes --only-binary :all: -r requirements/runtime.txt
COPY pyproject.toml README.md ./
COPY gateway/ gateway/
RUN pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir dist . \
 && pip --python /opt/pangate/bin/python install --no-cache-dir --no-index --no-deps dist/*.whl \
 && /opt/pangate/bin/python -m compileall -q /opt/pangate

FROM ${PYTHON_IMAGE}
RUN python -m pip uninstall --yes --quiet pip \
 && rm -rf /root/.cache /usr/lib/python3*/ensurepip /usr/local/lib/python3*/ensurepip \
 && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin pangate \
 && install -d -o pangate -g pangate -m 0700 /var/lib/pangate
COPY --from=build /opt/pangate /opt/pangate
ENV PATH=/opt/pangate/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /etc/pangate
VOLUME ["/var/lib/pangate"]
EXPOSE 8443 8444 9901
# The file system may be mounted read-only: only /var/lib/pangate is written.
#   docker run --read-only --cap-drop ALL --security-opt no-new-privileges -v ./config:/etc/pangate:ro -v data:/var/lib/pangate
ENTRYPOINT ["python", "-I", "-P", "-m", "gateway.cli"]
CMD ["run", "--config", "/etc/pangate/config.yaml"]
