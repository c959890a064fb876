"""The pages for people: the console, and the description of the API to try it from.

The console shows answers of models. The content security policy therefore allows only its own
scripts, and the page itself only sets text.
"""

from fleet.api.routes.static_page import StaticPage

CONSOLE = StaticPage("console")
#: Swagger UI, in whose styles the pictures are.
EXPLORER = StaticPage("explorer", images="'self' data:")
