"""Write the pages; say which have changed."""

from scripts.make_docs import DOCS, made

for name, text in made().items():
    path = DOCS / name
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
        print(f"wrote docs/{name}")
