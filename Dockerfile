# imgrec in a container, for CPU or CUDA: docs/install.md says how it is built and run.
FROM python:3.11-slim
ARG EXTRAS=notebooks,serve
# The index of PyTorch's CPU builds, for an image of a third of the size; without it PyTorch comes with CUDA.
ARG TORCH_INDEX=
WORKDIR /imgrec
COPY . .
RUN if [ -n "$TORCH_INDEX" ]; then \
        pip install --no-cache-dir -c constraints.txt --index-url "$TORCH_INDEX" torch torchvision; \
    fi \
    && pip install --no-cache-dir -c constraints.txt ".[$EXTRAS]" \
    && useradd --create-home imgrec \
    && install -d -o imgrec /work /cache
USER imgrec
ENV IMGREC_CACHE=/cache
WORKDIR /work
ENTRYPOINT ["imgrec"]
