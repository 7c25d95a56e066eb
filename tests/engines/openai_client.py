"""What the `openai` client does with an endpoint: URL and model as arguments; run in an environment that has it."""

from __future__ import annotations

import sys

import openai

url, model = sys.argv[1:3]
client = openai.OpenAI(base_url=url, api_key="none")
ask = [{"role": "user", "content": "Which card is the cheapest?"}]

assert client.models.list().data[0].id == model
whole = client.chat.completions.create(model=model, messages=ask, max_tokens=9)
assert whole.usage.completion_tokens == 9
assert whole.choices[0].finish_reason == "length"
options = {"include_usage": True}
chunks = list(
    client.chat.completions.create(
        model=model, messages=ask, max_tokens=9, stream=True, stream_options=options
    )
)
said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
assert said == whole.choices[0].message.content
assert chunks[-1].usage.completion_tokens == 9

several = client.chat.completions.create(model=model, messages=ask, max_tokens=9, n=3)
assert [choice.index for choice in several.choices] == [0, 1, 2]
assert several.usage.prompt_tokens == whole.usage.prompt_tokens  # once, however many answers
assert several.usage.completion_tokens == 27
texts = [choice.message.content for choice in several.choices]
assert len(set(texts)) == 3  # answers differ, and come again one by one with their seeds
for seed, text in enumerate(texts):
    alone = client.chat.completions.create(model=model, messages=ask, max_tokens=9, seed=seed)
    assert alone.choices[0].message.content == text
long = client.chat.completions.create(model=model, messages=ask, n=6, seed=11)
assert len({len(choice.message.content) for choice in long.choices}) > 1  # lengths are drawn apart
listed = client.completions.create(model=model, prompt=["one prompt", "and another"], n=2, max_tokens=5)
assert [choice.index for choice in listed.choices] == [0, 1, 2, 3]
assert all(choice.text for choice in listed.choices)
assert listed.usage.completion_tokens == 20
indices = {
    choice.index
    for event in client.completions.create(
        model=model, prompt=["one prompt", "and another"], n=2, max_tokens=5, stream=True
    )
    for choice in event.choices
}
assert indices == {0, 1, 2, 3}
each = [
    client.completions.create(model=model, prompt="and another", max_tokens=5, seed=seed) for seed in (0, 1)
]
assert [one.choices[0].text for one in each] == [choice.text for choice in listed.choices[2:]]
echoed = client.completions.create(model=model, prompt=["one prompt", "and another"], echo=True, max_tokens=5)
assert [choice.text.startswith(prompt) for choice, prompt in zip(echoed.choices, ["one prompt", "and another"])] == [
    True, True
]  # fmt: skip
codes = []
for ask_for in (
    lambda: client.chat.completions.create(model=model, messages=ask, logprobs=True, top_logprobs=2),
    lambda: client.chat.completions.create(model=model, messages=ask, logit_bias={"5": 100}),
    lambda: client.completions.create(model=model, prompt="hello", logprobs=1),
    lambda: client.completions.create(model=model, prompt="hello", suffix="bye"),
    lambda: client.completions.create(model=model, prompt="hello", best_of=3),
):
    try:
        ask_for()
    except openai.BadRequestError as refused:
        codes.append(refused.code)
assert codes == ["unsupported_parameter"] * 5, codes
refused = ""
try:
    client.chat.completions.create(model=model, messages=ask, n=2, temperature=0)
except openai.BadRequestError as error:
    refused = str(error)
assert "n must be 1" in refused, refused
form = {"structured_outputs": {"choice": ["cats", "dogs"]}}
assert client.completions.create(model=model, prompt="?", extra_body=form).choices[0].text == "cats"

parameters = {
    "type": "object",
    "properties": {"chip": {"type": "string"}, "cards": {"type": "integer", "minimum": 2}},
    "required": ["chip", "cards"],
}
tool = {"type": "function", "function": {"name": "price", "parameters": parameters}}
for choice in ("auto", "required", {"type": "function", "function": {"name": "price"}}):
    made = client.chat.completions.create(model=model, messages=ask, tools=[tool], tool_choice=choice)
    (call,) = made.choices[0].message.tool_calls
    assert call.function.name == "price", call
    assert made.choices[0].finish_reason in ("tool_calls", "stop")
events = client.chat.completions.create(model=model, messages=ask, tools=[tool], stream=True)
written = "".join(
    part.function.arguments or ""
    for event in events
    if event.choices
    for part in event.choices[0].delta.tool_calls or ()
)
assert '"cards": 2' in written, written

schema = {"type": "object", "properties": {"done": {"type": "boolean"}}, "required": ["done"]}
form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
structured = client.chat.completions.create(model=model, messages=ask, response_format=form)
assert structured.choices[0].message.content == '{"done": false}'

short = client.responses.create(model=model, input="hello", max_output_tokens=9)
assert short.status == "incomplete"
answer = client.responses.create(model=model, input="hello")
assert answer.output_text.startswith(short.output_text.strip())
with client.responses.stream(model=model, input="hello") as stream:
    kinds = [event.type for event in stream]
    assert stream.get_final_response().output_text == answer.output_text
assert kinds[0] == "response.created"
assert "response.output_text.delta" in kinds
flat = {"type": "function", "name": "price", "parameters": parameters}
called = client.responses.create(model=model, input="hello", tools=[flat])
assert [item.type for item in called.output] == ["function_call"]

text = client.completions.create(
    model=model, prompt="Once upon", max_tokens=5, extra_body={"ignore_eos": True}
)
assert text.usage.completion_tokens == 5
assert len(client.embeddings.create(model=model, input=["a", "b"]).data) == 2
pixel = "iVBORw0KGgoAAAANSUhEUgAAAyAAAAJYCAAAAAAwMDAw"  # the head of a picture of 800 × 600 points
picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{pixel}"}}
seen = client.chat.completions.create(
    model=model, messages=[{"role": "user", "content": [{"type": "text", "text": "what is this?"}, picture]}],
    max_tokens=3,
)  # fmt: skip
assert 440 < seen.usage.prompt_tokens < 620, seen.usage  # 25 × 19 tokens and the text around them
refused = ""
try:
    client.chat.completions.create(model="nobody", messages=ask)
except openai.NotFoundError as error:
    refused = str(error)
assert "nobody" in refused
print("openai", openai.__version__, "ok")
