# The points of one sweep; each is one call of the command line. Configuration: written by lib/run/sweep.py.
import os

# Waits for nothing that is done: `--once` finds the record of this very point, also where Snakemake lost track.
OPTIONS = "--once --no-html" if not config["html"] else "--once"


rule all:
    input:
        expand("{name}/record.json", name=config["points"]),


rule point:
    input:
        ancient(config["folder"] + "/points/{name}.json"),
    output:
        "{name}/record.json",
    params:
        python=config["python"],
        slug=config["slug"],
        profile=config["profile"],
        device=config["device"],
        out=lambda wildcards, output: os.path.dirname(output[0]),
        options=OPTIONS,
    threads: 1
    resources:
        gpu=1 if config["device"] == "cuda" else 0,
    shell:
        "{params.python:q} -m lib run {params.slug:q} --profile {params.profile:q} --device {params.device}"
        " --params-file {input:q} --out {params.out:q} {params.options}"
