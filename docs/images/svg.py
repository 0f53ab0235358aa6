"""Pieces of the pictures of these pages. Colours follow the reader's light or dark scheme."""
import html
import pathlib

# class: (light, dark)
COLOURS = {
    "panel": ("#ffffff", "#1d2129"), "line": ("#5d6a7a", "#97a5b6"), "ink": ("#1a222e", "#e8ecf2"), "soft": ("#556171", "#a9b4c3"),
    "grey": ("#eceff4", "#303744"), "blue": ("#d6e6fb", "#244468"), "green": ("#d5efdb", "#22502f"), "amber": ("#fdeac2", "#614a16"),
    "red": ("#fbd9d4", "#6d2d28"), "violet": ("#e6dbf7", "#49346c"),
}


def style(scheme):
    rules = "".join(f".{name}{{fill:{colours[scheme]}}}" for name, colours in COLOURS.items())
    stroke = COLOURS["line"][scheme]
    return rules + f".box{{stroke:{stroke};stroke-width:.8}}.path{{fill:none;stroke:{stroke};stroke-width:1.5}}"


def Text(x, y, text, size=13, kind="ink", anchor="start", bold=False):
    weight = ' font-weight="600"' if bold else ""
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}"{weight}>{html.escape(text)}</text>'


def Box(x, y, width, height, kind="grey", lines=(), size=13, radius=6):
    """A box with lines of text in its middle. The first line is bold where there are several."""
    parts = [f'<rect class="box {kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius}"/>']
    step = size + 5
    first = y + height / 2 - (len(lines) - 1) * step / 2 + size * 0.35
    for number, line in enumerate(lines):
        parts.append(Text(x + width / 2, first + number * step, line, size if number == 0 else size - 1, "ink", "middle", len(lines) > 1 and number == 0))
    return "\n".join(parts)


def Arrow(*points, head=True, dashed=False):
    """A line through the points, each (x, y), with a head at the last one."""
    path = "M" + " L".join(f"{x:g} {y:g}" for x, y in points)
    return f'<path class="path" d="{path}"' + (' marker-end="url(#head)"' if head else "") + (' stroke-dasharray="5 4"' if dashed else "") + "/>"


def write(script, width, height, parts, about):
    """Writes the picture next to the script that draws it, under the script's name."""
    head = '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path class="line" d="M0 0 L8 4 L0 8 z"/></marker>'
    text = "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" role="img">',
        f"<title>{html.escape(about)}</title>",
        f"<style>{style(0)}@media (prefers-color-scheme: dark){{{style(1)}}}</style>",
        f"<defs>{head}</defs>",
        f'<rect class="panel" width="{width}" height="{height}" rx="12"/>', *parts, "</svg>", ""])
    path = pathlib.Path(script).with_suffix(".svg")
    path.write_text(text)
    print(path.name)
