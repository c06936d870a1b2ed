"""Takes a report apart for the tests: nesting, ids, links, words by section, rows of tables, bars."""

from html.parser import HTMLParser

VOID_TAGS = {"meta", "br", "link", "img", "input", "hr", "wbr"}
FETCHING = {"src", "href", "xlink:href", "srcset", "data", "action", "poster"}


class Page(HTMLParser):
    """Parses a page, and fails where tags are not nested as they should be.

    words    the text by section; "" for what is in none
    rows     the cells of every row of a table's body by section, as text
    trials   nanoseconds of each ledger bar: its whole, and its parts
    """

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.fetches, self.tags, self.trials = [], [], [], set(), []
        self.words, self.rows, self.section = {"": ""}, {"": []}, ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.note(tag, dict(attrs))
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.note(tag, dict(attrs))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "section":
            self.section = ""

    def handle_data(self, data):
        if "style" in self.open or not data.strip():
            return
        self.words[self.section] += data
        if "tbody" in self.open:
            self.rows[self.section][-1][-1] += data

    def note(self, tag, attrs):
        self.tags.add(tag)
        self.fetches += [value for name, value in attrs.items() if name in FETCHING]
        if "id" in attrs:
            self.ids.append(attrs["id"])
        if tag == "section":
            self.section = attrs["id"]
            self.words[self.section], self.rows[self.section] = "", []
        if tag == "tr" and "tbody" in self.open:
            self.rows[self.section].append([])
        if tag in ("td", "th") and "tbody" in self.open:
            self.rows[self.section][-1].append("")
        if tag == "small" and "tbody" in self.open:
            self.rows[self.section][-1][-1] += " "
        if "data-wall-ns" in attrs:
            self.trials.append((int(attrs["data-wall-ns"]), []))
        if "data-ns" in attrs:
            self.trials[-1][1].append(int(attrs["data-ns"]))

    def row(self, section, name, number=0):
        """The cells behind the `number`th row of a section that is headed by `name`."""
        return [cells[cells.index(name) + 1 :] for cells in self.rows[section] if name in cells[:2]][number]
