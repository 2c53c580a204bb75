"""The manual: Markdown in `docs/`, HTML wherever ds2d is installed.

Rule: needs the standard library only, because the wheel's build runs it before anything else is installed.
Surprise: a wheel carries finished HTML and no Markdown; a checkout carries Markdown, rendered when somebody looks.
"""
