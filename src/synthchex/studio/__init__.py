"""The studio: a page on this machine to make films, clean them, look through a dataset and read reports.

What the page does is in plain functions: `generate`, `clean`, `browse` with `index`, `thumbs`, `ratings` and
`neighbours`, `reports`. `markup` writes HTML, `safety` says who may see what. Only `app` and the files named `*_tab`
know Gradio.
"""
