"""Tables in pages of the manual that scripts write."""


def write_table(path, name, rows):
    """Puts the rows, the second of which is the rule, between `<!-- NAME -->` and `<!-- end of NAME -->`."""
    text = open(path, encoding="utf8").read()
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, rest = text.split(begin, 1)
    after = rest.split(end, 1)[1]
    table = "".join("| " + " | ".join(r) + " |\n" for r in rows)
    open(path, "w", encoding="utf8").write(before + begin + "\n" + table + "\n" + end + after)
