"""What the tool-call generator draws from: tools, phrases that ask for them, values of arguments.

In a phrase, `{name}` stands for an argument and `[…]` for a part that may be left out together with its
arguments. Every value is copied from the request as it stands, so that a small model can learn the task.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Pool:
    """Values of an argument. Every fifth of an open pool is for held-out rows; a closed one is an enum."""

    values: tuple[str | int, ...]
    closed: bool = False

    def part(self, heldout: bool) -> tuple[str | int, ...]:
        if self.closed:
            return self.values
        return tuple(value for place, value in enumerate(self.values) if (place % 5 == 4) == heldout)


@dataclass(frozen=True)
class Tool:
    """Arguments in the order of the JSON; `heldout_phrases` never occur in training rows."""

    name: str
    arguments: dict[str, Pool]
    phrases: tuple[str, ...]
    heldout_phrases: tuple[str, ...]
    differ: tuple[str, ...] = field(default=())
    """Arguments that must not have the same value."""


def _words(text: str, closed: bool = False) -> Pool:
    return Pool(tuple(text.split("|")), closed)


TIMES = Pool(tuple(f"{minutes // 60:02d}:{minutes % 60:02d}" for minutes in range(300, 1380, 5)))
AMOUNTS = Pool(tuple(range(12, 990, 7)))
MINUTES = Pool(tuple(range(2, 120)))
PEOPLE = Pool(tuple(range(2, 22)))
DAYS = _words("today|tomorrow|Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday", closed=True)
DATES = Pool(
    tuple(f"{day} {month}" for month in ("March", "April", "May", "June", "July") for day in range(1, 29, 2))
)
CITIES = _words(
    "Paris|Lagos|Oslo|Lima|Quito|Boston|Cairo|Dublin|Seoul|Havana|Madrid|Nairobi|Osaka|Prague|Tunis|Vienna|"
    "Zagreb|Athens|Bogota|Lisbon|Geneva|Hanoi|Jakarta|Kyoto|Manila|Munich|Naples|Perth|Riga|Sofia|Toronto|"
    "Warsaw|Denver|Chicago|Tallinn|Bergen|Porto|Seville|Turin|Malmo"
)
NAMES = _words(
    "Anna|Ben|Clara|David|Elif|Farid|Grace|Hugo|Ines|Jonas|Kemal|Laura|Mario|Nadia|Omar|Paula|Quentin|Rosa|"
    "Samir|Tara|Umar|Vera|Wanda|Yusuf|Zoe|Lukas|Mina|Petra|Ravi|Sonja"
)
ROOMS = _words(
    "kitchen|bedroom|bathroom|hallway|office|garage|nursery|attic|cellar|balcony|studio|library|porch|den"
)
TASKS = _words(
    "water the plants|pay the rent|call the bank|feed the cat|buy stamps|renew the passport|"
    "charge the camera|take out the bins|book the dentist|send the invoice|clean the oven|return the books|"
    "walk the dog|back up the laptop|order new tyres|wash the curtains|check the boiler|print the tickets|"
    "defrost the fridge|sign the lease"
)
LABELS = _words(
    "gym|work|school|medicine|breakfast|meeting|train|yoga|nap|laundry|bread|market|swim|choir|flight"
)
EVENTS = _words(
    "team lunch|budget review|parents evening|piano lesson|project kickoff|eye test|board meeting|"
    "garden party|chess club|job interview|book club|car service|tax appointment|code review|birthday dinner|"
    "safety training|press call|house viewing|staff meeting|first aid course"
)
TEXTS = _words(
    "I am running late|the parcel arrived|dinner is ready|call me back|see you at noon|"
    "the meeting is cancelled|bring an umbrella|I found your keys|we won the match|please lock the door|"
    "the train is delayed|happy birthday|the report is done|I left the office|good luck today|"
    "the car is fixed|buy some milk|thanks for the help|we are outside|the tickets are booked"
)
SONGS = _words(
    "Blue Harbour|Paper Moon|Silver Rain|Northern Road|Golden Hour|Slow River|Winter Sun|Night Train|"
    "Open Sky|Red Lantern|Summer Glass|Wild Honey|Broken Compass|Quiet Storm|Velvet Dawn|Morning Tide|"
    "City Lights|Hollow Pines|Distant Bells|Amber Waves"
)
ARTISTS = _words(
    "The Foxes|Lena Hart|Iron Garden|Milo Reyes|Kite Parade|Nora Lund|The Tides|Juno Vale|Sam Okoro|Opal"
)
PHRASES = _words(
    "good morning|where is the station|thank you very much|how much is this|I would like some tea|"
    "see you soon|the bill please|I am lost|happy new year|what time is it|my name is Alex|have a nice day|"
    "I need a doctor|the room is cold|we are from Canada|it was delicious|can you help me|two tickets please|"
    "I do not know|sleep well"
)
RESTAURANTS = _words(
    "Casa Verde|The Anchor|Bella Notte|Green Olive|Sakura House|Old Mill|Lotus Garden|Blue Door|Chez Marie|"
    "Spice Route|Harbour Grill|Le Jardin|Rustic Oven|Golden Dragon|Pine and Salt"
)
PLACES = _words(
    "the airport|the museum|Central Park|the train station|City Hall|the hospital|the old harbour|"
    "the stadium|Grand Hotel|the university|the zoo|Market Square|the opera|the castle|West Beach|"
    "the post office|the embassy|River Mall|the cathedral|the aquarium"
)
LANGUAGES = _words("French|German|Spanish|Italian|Turkish|Polish|Swedish|Japanese", closed=True)
CURRENCIES = _words("USD|EUR|GBP|JPY|CHF|CAD|SEK", closed=True)
UNITS = _words("km|miles|metres|feet|yards|inches", closed=True)
STATES = _words("on|off", closed=True)
COLOURS = _words("red|blue|green|white|orange", closed=True)
MODES = _words("car|bike|bus|foot|train", closed=True)
DEGREES = _words("celsius|fahrenheit", closed=True)
APPS = _words("email|SMS|chat", closed=True)

TOOLS: tuple[Tool, ...] = (
    Tool(
        "get_weather",
        {"city": CITIES, "day": DAYS, "unit": DEGREES},
        (
            "What is the weather in {city}[ {day}][ in {unit}]?",
            "How is the weather in {city}[ {day}]?",
            "Show me the forecast for {city}[ for {day}][, in {unit}].",
            "Will it rain in {city}[ {day}]?",
            "Tell me the weather for {city}[ {day}][ using {unit}].",
            "Weather in {city}[ {day}][, {unit}], please.",
            "I am travelling to {city}[ {day}], what will the weather be like?",
            "Is it warm in {city}[ {day}]?[ Answer in {unit}.]",
        ),
        (
            "Do I need a coat in {city}[ {day}]?",
            "Give me[ {day}] conditions in {city}[ in {unit}].",
            "Check the sky over {city}[ {day}].",
        ),
    ),
    Tool(
        "set_alarm",
        {"time": TIMES, "label": LABELS},
        (
            "Set an alarm for {time}[ labelled {label}].",
            "Wake me up at {time}[ for {label}].",
            "I need an alarm at {time}[ with the label {label}].",
            "Please set my alarm to {time}[, call it {label}].",
            "Alarm at {time}[ for {label}], please.",
            "Can you wake me at {time}[ for {label}]?",
            "Make an alarm[ named {label}] for {time}.",
            "Ring at {time}[ for {label}].",
        ),
        (
            "Get me out of bed at {time}[ for {label}].",
            "Put an alarm[ called {label}] on {time}.",
            "An alarm[ tagged {label}] at {time} would be great.",
        ),
    ),
    Tool(
        "create_event",
        {"title": EVENTS, "date": DATES, "time": TIMES, "city": CITIES},
        (
            "Add {title} to my calendar on {date}[ at {time}][ in {city}].",
            "Schedule {title} for {date}[ at {time}][ in {city}].",
            "Put {title} in the calendar on {date}[, {time}].",
            "Create an event {title} on {date}[ starting at {time}].",
            "I have {title} on {date}[ at {time}][ in {city}], note it down.",
            "Plan {title} on {date}[ at {time}].",
            "New event: {title}, {date}[, {time}][, {city}].",
            "Please enter {title} for {date}[ at {time}].",
        ),
        (
            "Block {date}[ at {time}] for {title}.",
            "My calendar needs {title} on {date}[ in {city}].",
            "Pencil in {title} on {date}[ at {time}].",
        ),
    ),
    Tool(
        "send_message",
        {"to": NAMES, "text": TEXTS, "app": APPS},
        (
            "Tell {to} that {text}[ by {app}].",
            "Send a message to {to}: {text}.",
            "Message {to}[ by {app}] saying {text}.",
            "Write to {to}[ by {app}]: {text}.",
            "Let {to} know that {text}.",
            "Send {to} the text {text}[ via {app}].",
            "Please message {to}: {text}.",
            "Text {to}[ via {app}]: {text}.",
        ),
        (
            "Drop {to} a line[ by {app}]: {text}.",
            "{to} should hear this[ by {app}]: {text}.",
            "Pass this on to {to}: {text}.",
        ),
    ),
    Tool(
        "convert_currency",
        {"amount": AMOUNTS, "from": CURRENCIES, "to": CURRENCIES},
        (
            "Convert {amount} {from} to {to}.",
            "How much is {amount} {from} in {to}?",
            "What are {amount} {from} worth in {to}?",
            "Change {amount} {from} into {to}.",
            "{amount} {from} in {to}, please.",
            "I have {amount} {from}, how many {to} is that?",
            "Exchange {amount} {from} for {to}.",
            "Show {amount} {from} as {to}.",
        ),
        (
            "What do I get in {to} for {amount} {from}?",
            "Work out {amount} {from} in {to}.",
            "If I pay {amount} {from}, what is it in {to}?",
        ),
        differ=("from", "to"),
    ),
    Tool(
        "play_music",
        {"title": SONGS, "artist": ARTISTS, "room": ROOMS},
        (
            "Play {title}[ by {artist}][ in the {room}].",
            "I want to hear {title}[ by {artist}].",
            "Put on {title}[ by {artist}][ in the {room}].",
            "Start the song {title}[ by {artist}].",
            "Play the track {title}[ by {artist}][ in the {room}].",
            "Can you play {title}[ by {artist}]?",
            "Listen to {title}[ by {artist}][ in the {room}].",
            "Music please: {title}[ by {artist}].",
        ),
        (
            "Fill the {room} with {title}[ by {artist}].",
            "Let me listen to {title}[ by {artist}].",
            "Queue {title}[ by {artist}][ in the {room}].",
        ),
    ),
    Tool(
        "navigate",
        {"to": PLACES, "mode": MODES},
        (
            "Navigate to {to}[ by {mode}].",
            "How do I get to {to}[ by {mode}]?",
            "Take me to {to}[ by {mode}].",
            "Show the way to {to}[ by {mode}].",
            "Directions to {to}[ by {mode}], please.",
            "I want to go to {to}[ by {mode}].",
            "Find a route to {to}[ by {mode}].",
            "Guide me to {to}[ by {mode}].",
        ),
        (
            "Which way is {to}[ by {mode}]?",
            "Lead me to {to}[ by {mode}].",
            "Plot a course to {to}[ by {mode}].",
        ),
    ),
    Tool(
        "translate",
        {"text": PHRASES, "to": LANGUAGES},
        (
            "Translate {text} into {to}.",
            "How do you say {text} in {to}?",
            "What is {text} in {to}?",
            "Give me the {to} for {text}.",
            "Say {text} in {to}.",
            "I need {text} in {to}.",
            "Put {text} into {to}.",
            "Please translate {text} to {to}.",
        ),
        (
            "How would someone say {text} in {to}?",
            "Turn {text} into {to}.",
            "Write {text} in {to}.",
        ),
    ),
    Tool(
        "set_reminder",
        {"task": TASKS, "day": DAYS, "time": TIMES},
        (
            "Remind me to {task}[ {day}][ at {time}].",
            "Set a reminder to {task}[ {day}][ at {time}].",
            "Do not let me forget to {task}[ {day}].",
            "I must {task}[ {day}], remind me[ at {time}].",
            "Reminder: {task}[ {day}][ at {time}].",
            "Please remind me to {task}[ {day}][ at {time}].",
            "Add a reminder to {task}[ {day}].",
            "Can you remind me to {task}[ at {time}]?",
        ),
        (
            "Nudge me to {task}[ {day}][ at {time}].",
            "Make sure I {task}[ {day}][ at {time}].",
            "I should {task}[ {day}], keep me on it.",
        ),
    ),
    Tool(
        "set_light",
        {"room": ROOMS, "state": STATES, "color": COLOURS},
        (
            "Turn the {room} light {state}[ in {color}].",
            "Switch {state} the light in the {room}.",
            "Turn {state} the {room} lights.",
            "Lights {state} in the {room}[, {color}].",
            "Switch the {room} lamp {state}.",
            "Please turn {state} the light in the {room}.",
            "Put the {room} light {state}[ in {color}].",
            "The {room} light {state}[, {color}].",
        ),
        (
            "I want the {room} light {state}[ in {color}].",
            "Flip the {room} light {state}.",
            "Make it so the {room} light is {state}.",
        ),
    ),
    Tool(
        "convert_units",
        {"value": AMOUNTS, "from": UNITS, "to": UNITS},
        (
            "Convert {value} {from} to {to}.",
            "How many {to} are {value} {from}?",
            "What is {value} {from} in {to}?",
            "{value} {from} in {to}, please.",
            "Change {value} {from} to {to}.",
            "Express {value} {from} in {to}.",
            "I need {value} {from} in {to}.",
            "Tell me what {value} {from} is in {to}.",
        ),
        (
            "{value} {from} makes how many {to}?",
            "Give {value} {from} as {to}.",
            "Work out {value} {from} in {to}.",
        ),
        differ=("from", "to"),
    ),
    Tool(
        "set_timer",
        {"minutes": MINUTES, "label": LABELS},
        (
            "Set a timer for {minutes} minutes[ labelled {label}].",
            "Start a {minutes} minute timer[ for {label}].",
            "Count down {minutes} minutes[ for {label}].",
            "Timer: {minutes} minutes[, {label}].",
            "Give me {minutes} minutes[ for {label}].",
            "I need a timer of {minutes} minutes[ for {label}].",
            "Please time {minutes} minutes[ for {label}].",
            "Set the {label} timer to {minutes} minutes.",
        ),
        (
            "Beep in {minutes} minutes[ for {label}].",
            "Let {minutes} minutes run[ for {label}].",
            "Tell me when {minutes} minutes are over[ for {label}].",
        ),
    ),
    Tool(
        "book_table",
        {"restaurant": RESTAURANTS, "people": PEOPLE, "day": DAYS, "time": TIMES},
        (
            "Book a table for {people} at {restaurant}[ {day}][ at {time}].",
            "Reserve a table at {restaurant} for {people}[ {day}].",
            "Table for {people} at {restaurant}[ {day}][, {time}], please.",
            "We are {people}, get us a table at {restaurant}[ {day}].",
            "I want a table at {restaurant} for {people} people[ {day}].",
            "Please book {restaurant} for {people}[ {day}][ at {time}].",
            "Make a reservation at {restaurant} for {people}[ {day}][ at {time}].",
            "Get a table for {people} people at {restaurant}[ {day}].",
        ),
        (
            "Dinner for {people} at {restaurant}[ {day}][ at {time}].",
            "Seat {people} of us at {restaurant}[ {day}].",
            "Hold a table for {people} at {restaurant}[ at {time}].",
        ),
    ),
)
