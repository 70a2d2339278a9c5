"""How a chat model is asked to translate."""

from __future__ import annotations

from typing import Any

from mobilenmt.compression.core.errors import TeacherError
from mobilenmt.compression.teacher.settings import TeacherSettings

_REQUEST = (
    "Translate the following text from {source_language} to {target_language}. "
    "Answer with the translation only, without explanations.\n\n{text}"
)


def render(settings: TeacherSettings, tokenizer: Any, text: str, source_language: str, target_language: str) -> str:
    """What a chat model reads: the prompt with the text, inside the tokenizer's chat template if it has one.

    Raises TeacherError if there is neither a template nor a prompt, or the template refuses the messages.
    """
    prompt = settings.prompt or _REQUEST
    if not tokenizer.chat_template:
        if not settings.prompt:
            raise TeacherError(
                f"{settings.checkpoint}: the tokenizer has no chat template; set teacher.prompt to the whole input, "
                "as in '{source_language}: {text}\\n{target_language}:'"
            )
        return prompt.format(text=text, source_language=source_language, target_language=target_language)
    asked = prompt.format(text=text, source_language=source_language, target_language=target_language)
    messages = [{"role": "system", "content": settings.system}] if settings.system else []
    messages.append({"role": "user", "content": asked})
    try:
        # Templates of models that think first know enable_thinking; others ignore it.
        found: str = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
    except Exception as error:  # jinja2's errors, and what a template raises itself
        raise TeacherError(f"{settings.checkpoint}: its chat template refuses the prompt: {error}") from error
    return found
