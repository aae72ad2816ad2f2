# The explorer as a public demo: docker build -t iwae . && docker run --read-only --tmpfs /tmp -p 8501:8501 iwae
# docs/platforms.md says what it needs and how to let visitors train.
FROM python:3.11-slim AS packages
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY requirements.txt .
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" -r requirements.txt

FROM python:3.11-slim
COPY --from=packages /venv /venv
WORKDIR /app
COPY app.py home.py LICENSE ./
COPY .streamlit .streamlit
COPY checkpoints checkpoints
COPY iwae iwae
COPY pages pages
ENV PATH=/venv/bin:/usr/local/bin:/usr/bin:/bin HOME=/tmp PYTHONDONTWRITEBYTECODE=1 IWAE_READ_ONLY=1
ENV IWAE_DATA_DIR=/tmp/data IWAE_RUNS_DIR=/tmp/runs IWAE_MODELS_DIR=/tmp/models
USER 10001:10001
EXPOSE 8501
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8501/_stcore/health', timeout=4)"]
ENTRYPOINT ["python", "-m", "iwae", "app", "--server.address=0.0.0.0", "--server.port=8501", "--server.headless=true"]
