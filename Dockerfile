FROM python:3.12-slim AS build
COPY . /source
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /source

FROM python:3.12-slim
# tini: agents leave processes behind, and the first process of a container has to collect them.
RUN apt-get update \
    && apt-get install -y --no-install-recommends git tini \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir /wheels/*.whl && rm -rf /wheels

ARG UID=1000
# The state belongs to the user before it becomes a volume: a new volume takes its owner from here.
RUN useradd --create-home --uid "$UID" sprintrunner \
    && install -d -o sprintrunner -m 0700 /state \
    && install -d -o sprintrunner /project
USER sprintrunner
WORKDIR /project
ENV SPRINTRUNNER_STATE_DIR=/state \
    SPRINTRUNNER_TOKEN_FILE=/run/secrets/token
VOLUME ["/state"]
EXPOSE 8080
HEALTHCHECK CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/healthz', timeout=5)"]
ENTRYPOINT ["tini", "--"]
CMD ["sprintrunner", "serve", "--host", "0.0.0.0"]
