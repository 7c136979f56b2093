"""All findings in order: those of glance.py, and those on what `collect` set apart and on the items' texts.

In: `Facts`, the manifest, figures of the texts. Out: findings, what makes a training fail first, then what
spoils it, then what is good to know. A rule says nothing where all is well.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from pipeline.check.facts import COLUMNS, Facts, percent
from pipeline.check.glance import RULES
from pipeline.check.texts import MOST_TEXTS
from pipeline.data import tables
from pipeline.data.joining import read_once
from pipeline.documents.check import TextFigures, key_in
from pipeline.documents.data import Manifest
from pipeline.documents.finding import Finding


def found(facts: Facts, manifest: Manifest, texts: TextFigures | None) -> list[Finding]:
    findings = [finding for rule in RULES for finding in rule(facts)]
    findings += manifest.findings
    findings += _rejected(facts, manifest)
    findings += _tidied(manifest)
    findings += _misread(facts)
    findings += _texts(facts, texts) if texts else []
    order = ("error", "warning", "note")
    return sorted(findings, key=lambda finding: order.index(finding.severity))  # stable


def _rejected(facts: Facts, manifest: Manifest) -> Iterator[Finding]:
    """Bad rows by table; rows after as_of and duplicates are none."""
    limit = facts.params.collect.max_rejected_share
    for table, reasons in manifest.rejected.items():
        bad = {reason: rows for reason, rows in reasons.items() if reason != "after_as_of"}
        count = sum(bad.values())
        read = (manifest.rows.read or 0) if table == "interactions" else count + len(facts.table)
        if count and read:
            share = count / read
            listed = [f"{reason.replace('_', ' ')}: {rows:,} rows" for reason, rows in bad.items()]
            mending = facts.advice.get(table, "")
            yield Finding(
                kind="bad_rows",
                severity="error" if share > limit else "warning" if share > limit / 5 else "note",
                text=f"{count:,} of {read:,} rows of {table} cannot be read ({percent(share)})",
                figure=share,
                unit="share",
                examples=listed,
                key=key_in(mending, COLUMNS),
                remedy=(mending or "correct the source, or name the right columns")
                + f"; up to collect.max_rejected_share ({limit:g}) of them are left out",
            )
    duplicates, kept = manifest.rows.duplicates or 0, manifest.rows.kept or 1
    if duplicates > 0.01 * (duplicates + kept):
        yield Finding(
            kind="duplicates",
            severity="note",
            text=f"{duplicates:,} rows repeat user, item, time and event of another and were dropped",
            figure=duplicates / (duplicates + kept),
            unit="share",
            key=f"{COLUMNS}.timestamp",
            remedy="if these are different events, name a more exact time",
        )


def _tidied(manifest: Manifest) -> Iterator[Finding]:
    if cells := sum(manifest.tidied.values()):
        yield Finding(
            kind="tidied_ids",
            severity="note",
            text=f"{cells:,} ids or events held characters that nobody sees, which were taken out",
            figure=cells,
            unit="cells",
            examples=[f"{table}: {count:,}" for table, count in manifest.tidied.items()],
            key=f"{COLUMNS}.user_id",
            remedy="clean them where they come from: other programs will take them for ids of their own",
        )


def _misread(facts: Facts) -> Iterator[Finding]:
    """Titles of UTF-8 that some program took for cp1252 and saved so: 'CafÃ©'."""
    titles = facts.table.get(tables.TITLE, pd.Series(dtype="str")).dropna().head(MOST_TEXTS)
    wrong = [title for title in titles if not title.isascii() and read_once(title) != title]
    if wrong:
        yield Finding(
            kind="misread_titles",
            severity="warning",
            text=f"{percent(len(wrong) / len(titles))} of the titles are UTF-8 that was once read in another "
            f"encoding, like {wrong[0]!r} for {read_once(wrong[0])!r}",
            figure=len(wrong) / len(titles),
            unit="share",
            examples=[repr(title) for title in wrong[:3]],
            key="collect.files.encoding",
            remedy="export them anew as UTF-8: the file itself holds them so",
        )


def _texts(facts: Facts, texts: TextFigures) -> Iterator[Finding]:
    if texts.without_text > 0.3 * texts.items:
        share = texts.without_text / texts.items
        yield Finding(
            kind="items_without_text",
            severity="warning",
            text=f"{percent(share)} of the items have no text that the encoder could read",
            figure=share,
            unit="share",
            key="preprocess.item_text",
            remedy="name the columns that describe the items, in collect.files.columns and in this template",
        )
    if texts.unknown_tokens is not None and texts.unknown_tokens > 0.05:
        yield Finding(
            kind="unknown_tokens",
            severity="warning",
            text=f"the encoder does not know {percent(texts.unknown_tokens)} of the words' pieces",
            figure=texts.unknown_tokens,
            unit="share",
            key="finetune.encoder",
            remedy="name an encoder of the texts' language, or a multilingual one",
        )
    elif texts.tokens_a_word is not None and texts.tokens_a_word > 2:
        yield Finding(
            kind="foreign_words",
            severity="warning",
            text=f"the encoder cuts a word into {texts.tokens_a_word:.1f} pieces, as it does with a language "
            "that it was not trained on",
            figure=texts.tokens_a_word,
            unit="tokens a word",
            key="finetune.encoder",
            remedy="name an encoder of the texts' language, or a multilingual one",
        )
    if texts.cut is not None and texts.cut > 0.2:
        yield Finding(
            kind="texts_cut",
            severity="note",
            text=f"{percent(texts.cut)} of the texts are longer than {facts.params.finetune.max_length} "
            "tokens; the rest of them is not read",
            figure=texts.cut,
            unit="share",
            key="finetune.max_length",
            remedy="raise it, at the price of a longer training",
        )
