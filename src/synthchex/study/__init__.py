"""Reader studies: films of several arms before readers who do not know which is which.

`design` is what is registered before anybody reads, `arms` draws and re-encodes the films, `orders` says who sees what
when, `making` writes a study, `server` shows it, `answers` keeps and gives back what readers said.
"""
