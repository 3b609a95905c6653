# docker build -t ima . && docker run --rm -v "$PWD:/work" ima compare digits
FROM python:3.12-slim
WORKDIR /ima
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
# The build for CPUs, a quarter of the one for GPUs; for those leave this line out.
RUN pip install --no-cache-dir -c constraints.txt --index-url https://download.pytorch.org/whl/cpu torch
RUN pip install --no-cache-dir -c constraints.txt '.[cli,data,autoattack]'
WORKDIR /work
ENTRYPOINT ["ima"]
CMD ["--help"]
