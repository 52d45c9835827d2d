# The artifact in a container: docker build -t lrmf . && docker run --rm lrmf make check-claims
FROM python:3.12-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /lrmf
COPY . .
RUN make setup
ENV PATH="/lrmf/.venv/bin:$PATH"
CMD ["make", "help"]
