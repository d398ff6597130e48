#!/usr/bin/python3
"""Two works of free English prose as plain text, for calibrating and judging language models: scripts/prose.py DIR

Writes DIR/calib.txt (The Debian Administrator's Handbook) and DIR/heldout.txt (An Anarchist FAQ): the paragraphs of the Debian packages
debian-handbook and anarchism, fetched with apt-get and unpacked below DIR; nothing is installed. scripts/accuracy.sh reads them.
"""
import glob
import html.parser
import os
import subprocess
import sys

WORKS = {  # file: package, pages in the package, characters
    "calib.txt": ("debian-handbook", "usr/share/doc/debian-handbook/html/en-US/sect.*.html", 400_000),
    "heldout.txt": ("anarchism", "usr/share/doc/anarchism/html/sec[A-J]*.html", 200_000),
}
BLOCKS = ("p", "div")
SHORTEST = 200  # characters of a paragraph that is prose and not a caption


class Paragraphs(html.parser.HTMLParser):
    """The text of <p> and <div class="para">; markup inside is dropped, code listings are not prose."""

    def __init__(self):
        super().__init__()
        self.found, self.text, self.skip = [], None, 0

    def end_paragraph(self):
        if self.text is not None:
            text = " ".join("".join(self.text).split())
            if len(text) >= SHORTEST:
                self.found.append(text)
        self.text = None

    def handle_starttag(self, tag, attrs):
        if tag in BLOCKS:
            self.end_paragraph()
        if tag == "p" or ("class", "para") in attrs:
            self.text = []
        elif tag == "pre":
            self.skip += 1

    def handle_endtag(self, tag):
        if tag in BLOCKS:
            self.end_paragraph()
        elif tag == "pre":
            self.skip -= 1

    def handle_data(self, data):
        if self.text is not None and not self.skip:
            self.text.append(data)


def unpacked(directory, package):
    """Folder with the package's files."""
    folder = os.path.join(directory, package)
    if not os.path.isdir(folder):
        subprocess.run(["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", package], cwd=directory, check=True)
        (deb,) = glob.glob(os.path.join(directory, package + "_*.deb"))
        subprocess.run(["dpkg-deb", "-x", deb, folder], check=True)
    return folder


def prose(folder, pages, length):
    found = []
    for path in sorted(glob.glob(os.path.join(folder, pages))):
        p = Paragraphs()
        with open(path, encoding="utf-8", errors="replace") as f:
            p.feed(f.read())
        p.close()
        found += p.found
    text = "\n".join(dict.fromkeys(found))  # a paragraph that several pages share comes once
    if not text:
        sys.exit(f"no paragraphs in {folder}/{pages}")
    return text[:length] + "\n"


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__.split("\n", 1)[0])
    os.makedirs(sys.argv[1], exist_ok=True)
    for name, (package, pages, length) in WORKS.items():
        text = prose(unpacked(sys.argv[1], package), pages, length)
        with open(os.path.join(sys.argv[1], name), "w", encoding="utf-8") as f:
            f.write(text)
        print(f"{name}: {len(text)} characters of {package}")


if __name__ == "__main__":
    main()
