"""One small paper in four forms."""

import pytest

PAPER = """# Loud Steps: Training with Noise

A. Author<sup>1</sup>

## Abstract

We train with noise. It helps on two tasks and costs nothing.

# 1 Introduction

Noise is old. Training with it is not.

# 2 Background

Earlier work used none.

# 3 Loud Steps

We add noise of scale epsilon to every step, drawn once.

## 3.1 The Schedule

The scale falls with the steps.

Algorithm 1: Loud step.
draw z
w = w - lr * (g + eps * z)

# 4 Experiments

We use a learning rate of 1e-3 and batch size 16, with momentum 0.9. The LoRA rank is 8.

Table 1: Accuracy on two tasks.

| task | accuracy |
|---|---|
| one | 81.0 |

Figure 1: Loss over
steps with noise.

As Figure 1 shows, it converges. Figure 1: is the same again.

## 4.1 Ablations

We remove the schedule and accuracy drops by two points. We also vary the number of samples from 1 to 8.

# 5 Conclusion

Noise helps.

# References

[1] Someone. Ablation of everything, batch size 99.

# A Details

The weight decay is 0.01.
"""


@pytest.fixture
def markdown(tmp_path):
    path = tmp_path / "paper.md"
    path.write_text(PAPER)
    return path


@pytest.fixture
def plain(tmp_path):
    path = tmp_path / "paper.txt"
    path.write_text("\n".join(line.lstrip("# ") for line in PAPER.split("\n")))
    return path


@pytest.fixture
def pdf(tmp_path):
    from fpdf import FPDF

    made = FPDF()
    made.set_font("helvetica", size=11)
    for half in PAPER.split("# 4 Experiments"):
        made.add_page()
        text = half if half.startswith("# Loud") else f"4 Experiments{half}"
        for line in text.split("\n"):
            made.multi_cell(0, 6, line.lstrip("# "), new_x="LMARGIN", new_y="NEXT")
    path = tmp_path / "paper.pdf"
    made.output(str(path))
    return path


LATEX = {
    "main.tex": r"""\documentclass{article}
\title{Loud Steps: Training with Noise}
% \section{Not here}
\begin{document}
\begin{abstract}
We train with noise. It helps on 5\% of tasks and costs nothing.
\end{abstract}
\section{Introduction}\label{sec:i}
Noise is old.
\input{parts/method}
\input{parts/missing}
\input{../outside}
\section{Experiments}
We use a learning rate of 1e-3 and batch size 16.
\begin{table}\begin{tabular}{l}x\end{tabular}\caption{Accuracy on \textbf{two} tasks.}\end{table}
\subsection{Ablations}
We remove the schedule and accuracy drops by two points.
\bibliography{refs}
\appendix
\section{Details}
\end{document}
""",
    "parts/method.tex": r"""\section{Loud \emph{Steps}}
We add noise. % said often
\begin{algorithm}
\caption{Loud step.}
draw z
\end{algorithm}
\input{parts/method}
""",
}


@pytest.fixture
def latex(tmp_path):
    folder = tmp_path / "tree"
    for name, text in LATEX.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder
