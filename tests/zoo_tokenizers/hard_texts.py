"""Texts that a tokenizer could lose: by hand, and as strategies of Hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

# Characters that one tokenizer or another handles in a special way.
PARTICULAR = (
    *" \n\t\r\0\x0b\x1c\x85\xa0\u1680\u2028\u3000\ufeff\u200b",
    *"aZé日1٣²!?'/_-.,\u0301",
    *"\u2581\u2585\ufffd\U0001f600\U0010ffff",
    *("'s", "'LL", "  ", "\n\n", "\r\n", "!\n/", "<s>", "<0x0A>", "<|endoftext|>", "[CLS]", "ſ"),
)
texts = st.lists(st.one_of(st.sampled_from(PARTICULAR), st.characters(exclude_categories=["Cs"])))
any_text = texts.map("".join)
stray = st.sampled_from([chr(0xDC00 + byte) for byte in (0x80, 0xBF, 0xC3, 0xE2, 0xFF)])
# As a file can hold it: bytes that are not UTF-8 among the text.
any_file = (
    st.lists(st.one_of(st.sampled_from(PARTICULAR), stray))
    .map("".join)
    .map(lambda text: text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape"))
)
