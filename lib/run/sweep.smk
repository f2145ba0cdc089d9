# The points of one sweep; each is one call of the command line. Configuration: written by lib/run/sweep.py.
# `--once` waits for a job of an earlier, killed sweep that still works on this very point, and takes over its record.
OPTIONS = "--once --no-html" if not config["html"] else "--once"


rule all:
    input:
        expand(config["folder"] + "/done/{name}", name=config["points"]),


rule point:
    input:
        ancient(config["folder"] + "/points/{name}.json"),
    output:
        touch(config["folder"] + "/done/{name}"),
    params:
        python=config["python"],
        slug=config["slug"],
        profile=config["profile"],
        device=config["device"],
        options=OPTIONS,
    threads: 1
    resources:
        gpu=1 if config["device"] == "cuda" else 0,
    shell:
        "{params.python:q} -m lib run {params.slug:q} --profile {params.profile:q} --device {params.device}"
        " --params-file {input:q} --out {wildcards.name:q} {params.options}"
