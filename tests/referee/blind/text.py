"""A short text written for these tests, and its ids: the index of each character in order."""

from __future__ import annotations

TEXT = """\
The ferry left the harbour at six, when the lamps along the pier were still lit and the gulls
had not yet begun to quarrel over the nets. Marta stood at the rail with her collar turned up and
counted the windows of the town as they went out, one after another, like thoughts that nobody
needed any more. Behind her the cook was singing. He sang the same song every morning, about a
girl who waited for a sailor and married the baker, and every morning he stopped before the end,
because the bread was ready or because the end was sad.

"You could finish it once," said Marta, when he brought the coffee.

"I could," said the cook. "But then what would I sing tomorrow?"

By noon the wind had turned. The captain, who trusted the glass more than the sky and his knee more
than the glass, put on his second coat and sent the boy to tie down the crates. There were forty
crates of apples, nine of lamps and one, marked with a red cross, of which the papers said only
that it should be kept dry. The boy sat on it all afternoon, out of the rain, and kept it dry.

In the evening they saw the light of the island. It was not where the chart had it. The captain
looked at the chart and looked at the light, and then he folded the chart and put it away, since
of the two the light was the one that could sink him. They came in on the last of the tide. On the
quay stood the keeper with a lantern, an old man with a dog at his feet, and he called across the
water to ask whether they had brought the apples. They had brought the apples. He asked about the
lamps. They had brought the lamps. He did not ask about the crate with the red cross, and when the
boy carried it down the plank and set it before him he took off his hat and stood for a long time
without a word, and the dog lay down beside it and put its head between its paws.
"""

ALPHABET = sorted(set(TEXT))
IDS = [ALPHABET.index(character) for character in TEXT]
