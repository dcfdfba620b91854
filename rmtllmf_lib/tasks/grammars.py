"""The grammars of the eight drawn text tasks: for each class its sentences, with words in braces to be filled in.

A word in braces stands for any of its alternatives, which may hold words in braces again. Sentences of different
classes share their topics, so that the topic alone does not give the class away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rmtllmf_lib.reprs import short_repr


@dataclass(frozen=True)
class Grammar:
    """A drawn text task.

    Attributes
    ----------
    title : str
    templates : tuple of str
        Prompts with one `{}` for the class name.
    sentences : mapping of class name to sentences
    words : mapping of a word in braces to what it may become
    """

    title: str
    templates: tuple[str, ...]
    sentences: Mapping[str, tuple[str, ...]]
    words: Mapping[str, tuple[str, ...]]

    __repr__ = short_repr


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split("|"))


_NUMBERS = tuple(str(number) for number in range(2, 100))
_PEOPLE = _split(
    "my sister|the neighbour|our teacher|the plumber|Maria|Ahmed|the doctor|my old friend|the new colleague|Tom|Yuki|"
    "the captain|the baker|our guide|the gardener|Ines|the nurse|my uncle|the librarian|the manager"
)
_THINGS = _split(
    "bicycle|kitchen table|garden fence|old radio|blue lamp|front door|washing machine|bookshelf|boat|piano|tent|roof|"
    "camera|laptop|winter coat|clock|engine|bridge|window|guitar|wooden chair|mirror|oven|suitcase|umbrella"
)
_PLACES = _split(
    "the harbour|the village|the station|Lisbon|Nairobi|the old mill|the market|the north tower|Oslo|the museum|the "
    "school|Lima|the factory|the airport|Kyoto|the castle|the valley|the library|Turin|the lake"
)

_INTENTS = Grammar(
    "Requests to an assistant",
    ("The user wants to {}.", "A request to {}."),
    {
        "set an alarm": _split(
            "{before} wake me at {n} past six{end}|{before} I must be up by {hour}{end}|{before} do not let me sleep "
            "beyond {hour}{end}|{before} ring at {hour}, will you{end}"
        ),
        "play music": _split(
            "{before} put on some {genre}{end}|{before} let me hear {genre} from the {n}s{end}|{before} I am in the "
            "mood for {genre}{end}|{before} something with {genre} in the {room}{end}"
        ),
        "send a message": _split(
            "{before} tell {who} that I am {n} minutes late{end}|{before} let {who} know about {hour}{end}|{before} "
            "write to {who} that I agree{end}|{before} {who} should hear that I said yes by {hour}{end}"
        ),
        "ask about the weather": _split(
            "{before} do I need an umbrella at {hour}{end}|{before} how cold does it get in {where} by {hour}{end}|"
            "{before} is it going to be dry in {where}{end}|{before} any storm coming to {where} within {n} hours{end}"
        ),
        "switch the lights": _split(
            "{before} it is too dark in the {room}{end}|{before} dim the {room} to {n} percent{end}|{before} the "
            "{room} lamp can go off at {hour}{end}|{before} make the {room} a little brighter{end}"
        ),
        "order food": _split(
            "{before} get us {n} {dish} for {hour}{end}|{before} we would like {dish} brought to the {room}{end}|"
            "{before} I am starving, some {dish} please{end}|{before} have {dish} delivered by {hour}{end}"
        ),
        "call a taxi": _split(
            "{before} I need a ride to {where} at {hour}{end}|{before} pick me up in {n} minutes{end}|{before} get me "
            "a car from {where}{end}|{before} how do I get driven to {where} by {hour}{end}"
        ),
        "plan a meeting": _split(
            "{before} find {n} minutes for {who} and me{end}|{before} put {who} into my calendar at {hour}{end}|"
            "{before} when are {who} and I both free{end}|{before} block {hour} for talks with {who}{end}"
        ),
    },
    {
        "n": _NUMBERS,
        "before": _split(
            "|the taxi has left,|after dinner,|the music was nice, now|my alarm rang,|before the meeting,|now that it "
            "rains,|the lights are fine,|my message was sent, so|with the pizza on its way,|once the sun is out,|"
            "please,"
        ),
        "end": _split("|, thanks|, if you can| as usual| today| tomorrow| before the storm| after the call| this time"),
        "hour": _split("six|half past seven|noon|a quarter to nine|5 pm|dawn|eleven|18:30|ten tonight|8:15"),
        "genre": _split("jazz|techno|a string quartet|opera|folk songs|drums and bass|piano|the blues|a choir|samba"),
        "room": _split("kitchen|hall|bedroom|garage|office|bathroom|cellar|nursery"),
        "dish": _split("noodles|pizza|green curry|tacos|soup|dumplings|a salad|burgers|sushi|fried rice"),
        "who": _PEOPLE,
        "where": _PLACES,
    },
)

_QUESTIONS = Grammar(
    "What a question asks for",
    ("The answer is {}.", "This question asks for {}."),
    {
        "a person": _split(
            "Whose idea was {topic}{q}|Name the one behind {topic}{q}|By whom was {topic} paid for{q}|Which of the "
            "neighbours began {topic}{q}|Who has run {topic} for {n} years{q}"
        ),
        "a place": _split(
            "Where did {topic} begin{q}|In which town is {topic} kept{q}|From what country came {topic}{q}|Which "
            "harbour saw {topic} after {n} days{q}|What street leads to {topic}{q}"
        ),
        "a number": _split(
            "How many people saw {topic}{q}|What share of the money went into {topic}{q}|How often was {topic} "
            "stopped in {n} weeks{q}|To what amount did {topic} grow{q}|Count the visitors of {topic}{q}"
        ),
        "a date": _split(
            "Since when has there been {topic}{q}|What year ended {topic}{q}|On which day did {who} see {topic}{q}|"
            "How long ago did {topic} start{q}|In what month does {topic} return{q}"
        ),
        "a reason": _split(
            "Why was {topic} given up{q}|For what cause did {who} leave {topic}{q}|How come {topic} failed after {n} "
            "days{q}|What made {who} doubt {topic}{q}|Because of what did {topic} end{q}"
        ),
        "a method": _split(
            "How does one repair {topic}{q}|By what means did {who} save {topic}{q}|In what way is {topic} built{q}|"
            "What steps lead to {topic}{q}|With which tools did {who} move {topic}{q}"
        ),
    },
    {
        "n": _NUMBERS,
        "q": _split("?| in the end?| at first?| again?| after the war?| during the flood?| last century?"),
        "who": _PEOPLE,
        "topic": _split(
            "the {kind} {thing} project|the {kind} {thing}|the fight over the {thing}|the {thing} of {where}|the "
            "{kind} school at {where}|the race to {where}"
        ),
        "kind": _split("first|famous|secret|lost|royal|cheapest|oldest|broken|painted|public"),
        "thing": _THINGS,
        "where": _PLACES,
    },
)

_MONTHS = {
    "spring": (("March", "03"), ("April", "04"), ("May", "05")),
    "summer": (("June", "06"), ("July", "07"), ("August", "08")),
    "autumn": (("September", "09"), ("October", "10"), ("November", "11")),
    "winter": (("December", "12"), ("January", "01"), ("February", "02")),
}
_DATES = Grammar(
    "The season of a date, north of the equator",
    ("This happened in {}.", "A date in {}."),
    {
        season: _split(
            f"{{carrier}} {{day}} {{{season}}} {{year}}{{tail}}|{{carrier}} {{year}}-{{{season} 2}}-{{day 2}}{{tail}}|"
            f"{{carrier}} {{{season}}} {{day}}, {{year}}{{tail}}|{{carrier}} {{day}}.{{{season} 2}}.{{year}}{{tail}}"
        )
        for season in _MONTHS
    },
    {
        "carrier": _split(
            "Born on|The letter is dated|Paid on|The contract ends on|Due by|The meeting moved to|Opened on|They met "
            "on|The train left on|Last seen on|Delivered on|The film came out on"
        ),
        "tail": _split("|, at noon|, as agreed|, it says|, before the holidays|, in the rain|, in warm sun|, late"),
        "day": tuple(str(day) for day in range(1, 29)),
        "day 2": tuple(f"{day:02d}" for day in range(1, 29)),
        "year": tuple(str(year) for year in range(1950, 2030)),
        **{season: tuple(name for name, _ in months) for season, months in _MONTHS.items()},
        **{f"{season} 2": tuple(number for _, number in months) for season, months in _MONTHS.items()},
    },
)

_UNITS = Grammar(
    "The quantity that a number measures",
    ("A measure of {}.", "This number is a {}."),
    {
        quantity: _split(
            f"{{who}} noted {{n}} {{{quantity}}} at {{where}}{{tail}}|the {{thing}}: {{n}}.{{digit}} {{{quantity}}}"
            f"{{tail}}|{{n}} {{{quantity}}} were left of it{{tail}}|it came to {{n}} {{{quantity}}} for the {{thing}}"
            f"{{tail}}"
        )
        for quantity in ("length", "weight", "duration", "temperature", "speed", "volume", "price", "energy")
    },
    {
        "length": _split("m|cm|miles|feet|inches|km|yards|mm"),
        "weight": _split("kg|g|pounds|tons|ounces|lb|stone|mg"),
        "duration": _split("h|min|weeks|days|seconds|s|fortnights|years"),
        "temperature": _split("degrees|°C|°F|kelvins|degrees Celsius|K|degrees below zero|degrees Fahrenheit"),
        "speed": _split("km/h|m/s|knots|mph|miles an hour|metres a second|kph|feet per minute"),
        "volume": _split("litres|ml|gallons|pints|cups|barrels|l|cubic feet"),
        "price": _split("euros|dollars|£|yen|cents|pesos|USD|francs"),
        "energy": _split("kWh|joules|calories|kcal|J|megajoules|watt hours|kJ"),
        "n": _NUMBERS,
        "digit": tuple("123456789"),
        "who": _PEOPLE,
        "where": _PLACES,
        "thing": _THINGS,
        "tail": _split("| in all| on Monday|, more than before| twice| again|, no less| by then"),
    },
)

_OPINIONS = Grammar(
    "Opinions of things that were bought",
    ("The customer is {}.", "A {} customer."),
    {
        "satisfied": _split(
            "The {thing} is not {bad} at all{tail}|I feared it would be {bad}, but the {thing} is {good}{tail}|{good} "
            "in every way, this {thing}{tail}|{who} called the {thing} {bad} and was wrong{tail}|Nothing {bad} about "
            "the {thing}{tail}"
        ),
        "disappointed": _split(
            "The {thing} is not {good} at all{tail}|I hoped it would be {good}, but the {thing} is {bad}{tail}|{bad} "
            "in every way, this {thing}{tail}|{who} called the {thing} {good} and was wrong{tail}|Nothing {good} about "
            "the {thing}{tail}"
        ),
        "undecided": _split(
            "The {thing} is {good} and {bad} at once{tail}|Half of the {thing} is {bad}, the other half {good}{tail}|"
            "{good} or {bad}, I cannot tell of this {thing}{tail}|{who} found the {thing} {good}, I found it {bad}"
            "{tail}|Neither {good} nor {bad}, that {thing}{tail}"
        ),
    },
    {
        "good": _split("solid|lovely|well made|quiet|worth the money|handy|sturdy|brilliant|comfortable|a joy"),
        "bad": _split("flimsy|ugly|badly made|noisy|a waste of money|clumsy|fragile|awful|uncomfortable|a pain"),
        "who": _PEOPLE,
        "thing": _THINGS,
        "tail": _split(".|, for now.| after {n} weeks.|, and so says {who}.|!| after all.|, to be honest."),
        "n": _NUMBERS,
    },
)

_TENSES = Grammar(
    "When something happens",
    ("This happens in {}.", "It is about {}."),
    {
        "the past": _split(
            "{who} {did} the {thing}{at}{tail}|the {thing} has been {done} by {who}{tail}|{who} used to {do} the "
            "{thing}{at}{tail}|{who} had just {done} the {thing}{tail}|when {who} {did} the {thing}, it rained{tail}"
        ),
        "the present": _split(
            "{who} is {doing} the {thing}{at}{tail}|the {thing} is being {done} by {who}{tail}|{who} keeps {doing} the "
            "{thing}{at}{tail}|here is {who}, {doing} the {thing}{tail}|while {who} is {doing} the {thing}, it rains"
            "{tail}"
        ),
        "the future": _split(
            "{who} will {do} the {thing}{at}{tail}|the {thing} is to be {done} by {who}{tail}|{who} is about to {do} "
            "the {thing}{at}{tail}|{who} means to {do} the {thing}{tail}|once {who} has {done} the {thing}, it may rain"
            "{tail}"
        ),
    },
    {
        "do": _split("repair|paint|sell|move|clean|borrow|build|photograph|measure|hide"),
        "did": _split("repaired|painted|sold|moved|cleaned|borrowed|built|photographed|measured|hid"),
        "done": _split("repaired|painted|sold|moved|cleaned|borrowed|built|photographed|measured|hidden"),
        "doing": _split("repairing|painting|selling|moving|cleaning|borrowing|building|photographing|measuring|hiding"),
        "at": _split("| at {where}| near {where}| outside {where}"),
        "tail": _split("|, says {who}|, of course| once more| alone| with {n} helpers| slowly"),
        "who": _PEOPLE,
        "where": _PLACES,
        "thing": _THINGS,
        "n": _NUMBERS,
    },
)

_CERTAINTY = Grammar(
    "How sure a speaker is",
    ("The speaker thinks that this is {}.", "It is {}."),
    {
        "certain": _split(
            "no doubt {who} {did} the {thing}{tail}|{who} must have {did} the {thing}{tail}|it is a fact that {who} "
            "{did} the {thing}{tail}|nobody can deny that {who} {did} the {thing}{tail}|who else but {who} {did} the "
            "{thing}{tail}"
        ),
        "possible": _split(
            "perhaps {who} {did} the {thing}{tail}|{who} might have {did} the {thing}{tail}|for all I know {who} {did} "
            "the {thing}{tail}|nobody can tell whether {who} {did} the {thing}{tail}|I would not rule out that {who} "
            "{did} the {thing}{tail}"
        ),
        "untrue": _split(
            "in no way has {who} {did} the {thing}{tail}|{who} cannot have {did} the {thing}{tail}|it is a myth that "
            "{who} {did} the {thing}{tail}|nobody believes that {who} {did} the {thing}{tail}|as if {who} had {did} "
            "the {thing}{tail}"
        ),
    },
    {
        "did": _split("repaired|painted|rented|moved|cleaned|borrowed|sold|photographed|measured|washed"),
        "tail": _split("| at {where}| near {where}|, says {who}| after {n} days| in time| again| with help"),
        "who": _PEOPLE,
        "where": _PLACES,
        "thing": _THINGS,
        "n": _NUMBERS,
    },
)

_SPEECH = Grammar(
    "What a sentence does",
    ("This sentence is {}.", "The speaker makes {}."),
    {
        "an apology": _split(
            "it was wrong of me to leave the {thing} at {where}{tail}|I should never have touched your {thing}{tail}|"
            "my fault, the {thing} is still at {where}{tail}|do not be cross about the {thing}{tail}"
        ),
        "a promise": _split(
            "you will have your {thing} by {time}{tail}|I shall not leave the {thing} at {where}{tail}|count on me for "
            "the {thing}{tail}|the {thing} is yours as soon as {who} is back{tail}"
        ),
        "a request": _split(
            "could {who} bring the {thing} to {where}{tail}|I need the {thing} by {time}{tail}|would you mind the "
            "{thing} for {n} minutes{tail}|let me have the {thing} for once{tail}"
        ),
        "a warning": _split(
            "one more step and the {thing} falls{tail}|nobody leaves {where} with a {thing} unhurt{tail}|mind the "
            "{thing}{tail}|touch the {thing} and {who} will be angry{tail}"
        ),
        "thanks": _split(
            "how kind of {who} to bring the {thing}{tail}|without you the {thing} would still be at {where}{tail}|we "
            "owe {who} a lot for the {thing}{tail}|I could not have moved the {thing} alone{tail}"
        ),
        "a complaint": _split(
            "{n} days and still no {thing}{tail}|I did not pay for a {thing} like this{tail}|again {who} left the "
            "{thing} at {where}{tail}|for weeks the {thing} has been broken{tail}"
        ),
        "an invitation": _split(
            "come and see the {thing} at {where}{tail}|{who} and I look at the {thing} by {time}, join us{tail}|there "
            "is a place for you beside the {thing}{tail}|why not meet {who} at {where}{tail}"
        ),
    },
    {
        "time": _split("noon|tonight|Friday|next week|six|tomorrow|Sunday morning|the end of May"),
        "tail": _split(".|, {who} said.|!| today.|, you know.|, my friend.|, as always.| in the rain."),
        "who": _PEOPLE,
        "where": _PLACES,
        "thing": _THINGS,
        "n": _NUMBERS,
    },
)

GRAMMARS: Mapping[str, Grammar] = {
    "intents": _INTENTS,
    "questions": _QUESTIONS,
    "dates": _DATES,
    "units": _UNITS,
    "opinions": _OPINIONS,
    "tenses": _TENSES,
    "certainty": _CERTAINTY,
    "speech": _SPEECH,
}
