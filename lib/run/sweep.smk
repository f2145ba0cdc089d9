# The points of one sweep; each is one call of the command line. Configuration: written by lib/run/sweep.py.
# Paths are absolute and the environment is part of the command, so that a job needs a shared folder and nothing else.

# `--once` waits for a job of an earlier, killed sweep that still works on this very point, and takes over its record.
OPTIONS = "--once" if config["html"] else "--once --no-html"


rule all:
    input:
        expand(config["done"] + "/{name}", name=config["points"]),


rule point:
    output:
        touch(config["done"] + "/{name}"),
    params:
        **{key: config[key] for key in ("root", "python", "slug", "profile", "device", "values", "folder")},
        options=OPTIONS,
    threads: 1
    resources:
        gpu=1 if config["device"] == "cuda" else 0,
    shell:
        "COMPANION_ROOT={params.root:q} PYTHONPATH={params.root:q}:${{PYTHONPATH:-}}"
        " {params.python:q} -m lib run {params.slug:q} --profile {params.profile:q} --device {params.device:q}"
        " --params-file {params.values:q}/{wildcards.name:q}.json --out {params.folder:q}/{wildcards.name:q}"
        " {params.options}"
