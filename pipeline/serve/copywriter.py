"""A line of recommendation text for a listed item, by a local language model that is bound to the facts.

In: `serve.copy_model`, an item's title, and its reasons. Out: a line, or None.
Rule: the model chooses how a line begins, which reasons it tells, in which order, and how they are joined.
Decoding sees no token but those of JOINTS, the title and the reasons' own words. What comes out is read again
by a pattern that knows nothing of tokens (`says_only`) before anybody gets it; a line that says anything else
is refused. Left free, a small model invents (docs/log.md).
"""

from __future__ import annotations

import logging
import re
import threading
from collections import OrderedDict
from typing import Any, NamedTuple

from pipeline.errors import PipelineError
from pipeline.models.pretrained import load_causal
from pipeline.serve.messages import Listed, Reason

log = logging.getLogger(__name__)
KEY = "params.yaml: serve.copy_model"
JOINTS = {  # how a line begins -> what may stand between that and the first reason
    "Try {title}": (": it ", ", since it ", " because it "),
    "Consider {title}": (": it ", ", since it ", " because it "),
    "How about {title}": ("? It ",),
    "Why not try {title}": ("? It ",),
}
FURTHER = (" and ", ". It ")  # between two reasons
LEAST_REASONS = 2  # of those there are
SAID_OF_IT = [  # how reasons begin, and what says the same of `it`
    (r"its text has (.*)", r'has "\1" in its text'),
    (r"its text is near yours", "has a text near yours"),
    (r"(described|also|new|about|often|much) ", r"is \1 "),
    (r"taken ", "was taken "),
    (r"naming ", "names "),
    (r"same ", "has the same "),
    (r"(goes|fits) ", r"\1 "),
    (r"(.*) the same as ", r"is \1 the same as "),
    (r"linked with ", "is linked with "),
    (r"(.*?) like that of (.*)", r"is like \2 by its \1"),  # the first: titles may say it, too
]
MOST_TOKENS = 200  # of title and reasons; more get no line: each costs a step of the whole list's lines
JOINING = 60  # tokens of a line that are neither, at most
TURNING = dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)))  # would turn words behind a title
MOST_LINES = 10  # of a list
KEPT = 10_000  # lines that are remembered
WAITING = 4  # questions that may wait for the model; who comes then gets no line
ASK = """Title: Alien. Facts: goes with Aliens; is also Horror; was taken by 14 in the last week.
Line: Try Alien, since it goes with Aliens and is also Horror. It was taken by 14 in the last week.

Title: {title}. Facts: {reasons}.
Line: """


class Facts(NamedTuple):
    title: str
    reasons: tuple[str, ...]  # as said of `it`: goes with Casino; was taken by 31 in the last week

    @classmethod
    def of(cls, row: Listed) -> Facts | None:
        """None where there is nothing to tell."""
        said = (_said_of_it(reason) for reason in row.reasons)
        reasons = tuple(dict.fromkeys(each for each in said if each))
        facts = cls(_plain(row.title or ""), reasons)
        return facts if facts.title and reasons else None


def _plain(text: str) -> str:
    return " ".join(text.translate(TURNING).split())


def _said_of_it(reason: Reason) -> str | None:
    text = _plain(reason.text)
    found = ((begin, said) for begin, said in SAID_OF_IT if re.match(begin, text))
    begin, said = next(found, (None, ""))
    return None if begin is None else re.sub(begin, said, text, count=1)


def says_only(line: str, facts: Facts) -> bool:
    """Whether a line names the item and gives reasons, each once and joined as here, and nothing else."""
    title, reason = re.escape(facts.title), "|".join(map(re.escape, facts.reasons))
    begin = "|".join(
        re.escape(lead).replace(re.escape("{title}"), title) + f"(?:{'|'.join(map(re.escape, joints))})"
        for lead, joints in JOINTS.items()
    )
    further = "|".join(map(re.escape, FURTHER))
    told = re.fullmatch(rf"(?:{begin})((?:{reason})(?:(?:{further})(?:{reason}))*)\.", line)
    return told is not None and all(told[1].count(each) <= 1 for each in facts.reasons)


class Line:
    """A line as it grows, piece by piece and token by token."""

    def __init__(self, facts: Facts, tokenizer: Any) -> None:
        self.facts, self._tokenizer = facts, tokenizer
        self.text, self.done = "", False
        self._joints: tuple[str, ...] = ()  # before the next reason
        self._left = list(facts.reasons)
        self._now: tuple[int, ...] = ()  # tokens of the piece that is being said
        # Tokens of the pieces that may be the one being said -> the piece, and the reason in it.
        self._open: dict[tuple[int, ...], tuple[str, str | None]] = {}
        for lead in JOINTS:
            self._open[self._tokens(lead.format(title=facts.title))] = (lead, None)

    def allowed(self) -> set[int]:
        """Tokens that may come next; empty once the line is done."""
        return {tokens[len(self._now)] for tokens in self._open}

    def take(self, token: int) -> None:
        """One of those allowed."""
        self._now += (token,)
        length = len(self._now)
        self._open = {tokens: piece for tokens, piece in self._open.items() if tokens[:length] == self._now}
        if self._now in self._open:
            self._say(*self._open[self._now])

    def _say(self, piece: str, reason: str | None) -> None:
        if piece in JOINTS:
            self.text, self._joints = piece.format(title=self.facts.title), JOINTS[piece]
        else:
            self.text, self._joints = self.text + piece, FURTHER
        if reason is not None:
            self._left.remove(reason)
        self._now, self.done = (), piece == "."
        pieces = {} if self.done else {joint + each: each for joint in self._joints for each in self._left}
        self._open = {self._tokens(text): (text, each) for text, each in pieces.items()}
        told = len(self.facts.reasons) - len(self._left)
        if told >= min(LEAST_REASONS, len(self.facts.reasons)) and not self.done:
            # With what ends a text: a full stop alone also begins ". It ".
            self._open[(*self._tokens("."), self._tokenizer.eos_token_id)] = (".", None)

    def _tokens(self, text: str) -> tuple[int, ...]:
        return _tokens(self._tokenizer, text)


def _tokens(tokenizer: Any, text: str) -> tuple[int, ...]:
    """None of them special: a title may look like the token that ends a text."""
    return tuple(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])


class Copywriter:
    """Writes lines, and remembers them. Safe for several threads."""

    def __init__(self) -> None:
        self.problem: str | None = None
        self._lock, self._waiting = threading.Lock(), threading.BoundedSemaphore(WAITING)
        self._spec: str | None = None
        self._loaded: tuple[Any, Any] | None = None  # model and tokenizer
        self._kept: OrderedDict[Facts, str | None] = OrderedDict()

    def renew(self, spec: str | None) -> threading.Thread | None:
        """Take another model, which a thread loads; until it is there, lists come without lines."""
        if spec == self._spec:
            return None
        self._spec, self._loaded, self.problem = spec, None, None
        if spec is None:
            return None
        thread = threading.Thread(target=self._load, args=(spec,), name="copywriter", daemon=True)
        thread.start()
        return thread

    def _load(self, spec: str) -> None:
        try:
            loaded = load_causal(spec, KEY)
        except Exception as error:  # whatever is wrong with it, lists go on without lines
            told = error if isinstance(error, PipelineError) else f"{KEY}: {spec}: {error!r}"
            if self._spec == spec:
                self.problem = f"no lines of text: {told}"
            log.error("no lines of text: %s", told, exc_info=not isinstance(error, PipelineError))
            return
        with self._lock:
            if self._spec == spec:
                self._kept.clear()
                self._loaded = loaded
                log.info("%s writes lines of text", spec)

    def told(self, listed: list[Listed]) -> list[Listed]:
        """The list, the first MOST_LINES of it with their lines."""
        lines = self.lines(listed[:MOST_LINES])
        told = [row.model_copy(update={"line": line}) for row, line in zip(listed, lines, strict=False)]
        return told + listed[len(told) :]

    def lines(self, rows: list[Listed]) -> list[str | None]:
        """Of each row. None: nothing to tell, a line that was refused, no model (`problem` says why, if none
        can be had), or too many who wait for it."""
        facts = [Facts.of(row) for row in rows]
        if self._loaded is None or not self._waiting.acquire(blocking=False):
            return [None] * len(rows)
        try:
            with self._lock:
                new = [each for each in dict.fromkeys(facts) if each is not None and each not in self._kept]
                if new:
                    self._kept.update(self._newly(new))
                found = [None if each is None else self._kept.get(each) for each in facts]
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
                return found
        finally:
            self._waiting.release()

    def _newly(self, facts: list[Facts]) -> dict[Facts, str | None]:
        """Lines to remember; none where the model fails, so that it is asked again."""
        spec, loaded = self._spec, self._loaded
        if loaded is None:  # taken away while this question waited
            return {}
        model, tokenizer = loaded
        told = {
            each: sum(len(_tokens(tokenizer, text)) for text in (each.title, *each.reasons)) for each in facts
        }
        short = [each for each, tokens in told.items() if tokens <= MOST_TOKENS]
        try:
            lines = self._written(short, model, tokenizer) if short else []
        except Exception as error:
            log.exception("the language model failed")
            if self._spec == spec:
                self.problem = f"no lines of text: {KEY}: {spec} failed: {error!r}"
            return {}
        if self._spec == spec:
            self.problem = None
        return dict.fromkeys(facts) | dict(zip(short, lines, strict=True))

    def _written(self, facts: list[Facts], model: Any, tokenizer: Any) -> list[str | None]:
        import torch

        lines = [Line(each, tokenizer) for each in facts]
        prompts = [ASK.format(title=each.title, reasons="; ".join(each.reasons)) for each in facts]
        tokenizer.padding_side = "left"
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        asked = tokenizer(
            prompts, return_tensors="pt", padding=True, add_special_tokens=False, split_special_tokens=True
        )
        start, end = asked["input_ids"].shape[1], tokenizer.eos_token_id

        def allowed(row: int, tokens: Any) -> list[int]:
            if len(tokens) > start and not lines[row].done:
                lines[row].take(int(tokens[-1]))
            return sorted(lines[row].allowed()) or [end]

        with torch.inference_mode():
            written = model.generate(
                **asked,
                prefix_allowed_tokens_fn=allowed,
                max_new_tokens=MOST_TOKENS + JOINING,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=end,
            )
        for line, tokens in zip(lines, written[:, start:].tolist(), strict=True):
            if not line.done and end in tokens:  # the last of all tokens, which nobody asked beyond
                line.take(end)
        told = [line.text if line.done else None for line in lines]
        return [
            line if line is not None and says_only(line, each) else None
            for line, each in zip(told, facts, strict=True)
        ]
