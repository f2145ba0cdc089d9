"""Write the catalogue from specification files: one YAML a paper, and the lock of its claims.

    python data/import_catalogue.py FOLDER

FOLDER holds one file a part (`<part>.yaml`, a list of rows).  Of each row the bibliography, the
registered claims, the parameters and what lies beyond our scale are kept; abstracts are not.  A
catalogue file that exists already is left alone: from then on it is the source, and it
changes only by hand and, for claims, by a dated amendment.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from lib import catalogue

# A paper carries a tag when the pattern occurs in its title, idea or component.
TAGS = {
    "adversarial": r"adversar",
    "anomaly-detection": r"anomal|outlier|out-of-distribution|\bOOD\b",
    "attention": r"attention|transformer|\bViT",
    "attribution": r"attribution|saliency|explanation|explain",
    "autoencoder": r"auto-?encoder|\bVAE",
    "boosting": r"boost(ed|ing)",
    "calibration": r"calibrat|overconfiden",
    "clustering": r"cluster",
    "continual-learning": r"continual|incremental|forget|lifelong|plasticity",
    "contrastive": r"contrast",
    "curvature": r"hessian|curvature|sharpness|flat(ter|ness| minima)",
    "distillation": r"distil",
    "federated": r"federated",
    "few-shot": r"few-shot|one-shot|in-context",
    "gan": r"\bGANs?\b|generative adversarial|discriminator",
    "graphs": r"\bgraphs?\b|\bGNN|\bGCN",
    "imbalance": r"long-tail|imbalanc|minority|\brare\b",
    "information-theory": r"mutual information|information bottleneck|entropy estimat|information-theoretic",
    "kernels": r"\bkernels?\b",
    "label-noise": r"nois(y|e) (label|annotation)|label noise|noisy",
    "masked-modelling": r"mask(ed|ing)|\bMIM\b",
    "optimal-transport": r"optimal transport|sinkhorn|wasserstein",
    "pde-ode": r"\bPINN|differential equation|\bODE\b|\bPDE|Poisson",
    "prompting": r"prompt",
    "pruning": r"prun|sparsity",
    "quantisation": r"quanti[sz]|codebook",
    "recommendation": r"recommend|collaborative filtering|implicit feedback|\bclicks?\b",
    "reinforcement-learning": r"reinforcement|\bRL\b|imitation|policy",
    "retrieval": r"retriev|\bsearch engine|re-?rank",
    "semi-supervised": r"semi-supervis|pseudo-?label|unlabel",
    "tabular": r"tabular|\btables?\b",
    "theory": r"\bprov(e|es|able|ably)\b|\btheor|\bbounds?\b|generali[sz]ation error",
    "time-series": r"time.series|forecast",
    "topology": r"topolog|betti|persisten(t|ce) homology",
    "unlearning": r"unlearn",
    "video-motion": r"video|motion|tracking",
    "audio": r"audio|sound|speech",
    "medical": r"medical|lesion|tumou?r|patholog|cell\b|MRI\b",
}
KEPT = (
    "slug title short_title part authors year venue arxiv code identity kind effort "
    "method_certainty component idea parameters claims beyond_scale"
).split()


def tags_of(row: dict[str, Any]) -> list[str]:
    """Tags by keyword, sorted; the row's part and kind are fields of their own."""
    text = " ".join((row["title"], row["idea"], row["component"]))
    return sorted(tag for tag, pattern in TAGS.items() if re.search(pattern, text, re.IGNORECASE))


def catalogue_row(row: dict[str, Any], position: int) -> dict[str, Any]:
    """What the catalogue keeps of a specification row."""
    kept = {key: row[key] for key in KEPT}
    kept["position"] = position
    kept["tags"] = tags_of(row)
    # Nothing is claimed to be exact before a chapter exists; unsure methods start as our reconstruction.
    kept["fidelity"] = "reconstructed" if row["method_certainty"] == "low" else "adapted"
    return {key: kept[key] for key in catalogue.FIELD_ORDER if key in kept}


def main(folder: Path) -> None:
    written = 0
    for part in catalogue.parts():
        rows = yaml.safe_load((folder / f"{part.slug}.yaml").read_text(encoding="utf-8"))
        for position, row in enumerate(rows, start=1):
            target = catalogue.folder() / part.slug / f"{row['slug']}.yaml"
            if target.exists():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(catalogue.dump(catalogue_row(row, position)), encoding="utf-8")
            written += 1
    catalogue.load.cache_clear()
    added = catalogue.extend_lock()
    print(f"{written} catalogue files written, {added} claims locked")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
