"""Hand-written vocabulary: topics, comparatives, words that templates use."""

# Twelve topics.  The first half of each list may appear in the classify
# expert's data; the second half is met only in the base's own texts, so a
# correct label there is knowledge that the base brings along.
TOPICS = {
    "sports": "team match goal coach player stadium referee score league trophy race sprint "
              "tennis striker tournament champion athlete penalty marathon medal hockey cricket goalie relay",
    "food": "soup bread cheese dinner recipe oven flour salad sauce butter pasta chef "
            "kitchen noodles pepper garlic dessert spoon stew omelet pancake biscuit lentils dumpling",
    "music": "guitar song drum concert melody piano band singer chorus violin album tune "
             "orchestra trumpet lyrics flute choir opera rhythm cello bass ballad banjo symphony",
    "weather": "rain storm cloud snow wind thunder fog frost sunny forecast hail breeze "
               "lightning drizzle humid blizzard drought sleet gust mist rainbow cyclone chilly overcast",
    "money": "bank loan budget price tax invoice salary market profit coin savings debt "
             "mortgage dividend refund bonus currency stock interest fee wallet pension payment auction",
    "travel": "flight hotel airport suitcase passport tourist beach train ticket luggage cruise visa "
              "hostel itinerary map voyage resort customs ferry camping taxi guidebook souvenir embassy",
    "health": "doctor fever nurse clinic medicine cough patient surgery vaccine pill headache hospital "
              "dentist allergy bandage therapy flu ointment diet pulse ambulance symptom checkup diagnosis",
    "technology": "laptop software server keyboard phone robot network battery screen website password chip "
                  "printer router browser app code database camera cable modem tablet sensor download",
    "garden": "flower seed soil rose lawn shovel tulip hedge compost weed pruning rake "
              "orchard fern greenhouse ivy bulb fertilizer daisy sprout bamboo petal mower vine",
    "animals": "dog cat horse bird rabbit lion tiger elephant fox wolf sheep owl "
               "giraffe zebra dolphin penguin hamster otter squirrel goat parrot turtle whale puppy",
    "school": "teacher exam homework pupil lesson classroom essay grade textbook student pencil campus "
              "lecture notebook spelling algebra tutor principal quiz semester library diploma chalk kindergarten",
    "law": "judge court lawyer trial verdict jury witness contract police appeal clause attorney "
           "lawsuit evidence statute hearing defendant testimony plaintiff bail custody sentence tribunal warrant",
}
TOPICS = {k: v.split() for k, v in TOPICS.items()}
EXPERT_TOPIC_WORDS = 12

# The base names topics only by these private codes, never by a label.
TOPIC_CODES = {t: f"T{i:02d}" for i, t in enumerate(TOPICS, 10)}

# adjective forms -> column, direction (True: the larger value)
COMPARATIVES = {
    "older": ("age", True), "younger": ("age", False), "taller": ("height", True),
    "shorter": ("height", False), "heavier": ("weight", True), "lighter": ("weight", False),
    "cheaper": ("price", False), "costlier": ("price", True), "longer": ("length", True),
    "faster": ("speed", True), "slower": ("speed", False), "wider": ("width", True),
    "narrower": ("width", False), "deeper": ("depth", True), "warmer": ("temperature", True),
    "colder": ("temperature", False), "newer": ("year", True),
}
SUPERLATIVES = {
    "oldest": ("age", True), "youngest": ("age", False), "tallest": ("height", True),
    "shortest": ("height", False), "heaviest": ("weight", True), "lightest": ("weight", False),
    "cheapest": ("price", False), "longest": ("length", True), "fastest": ("speed", True),
    "slowest": ("speed", False), "widest": ("width", True), "deepest": ("depth", True),
    "warmest": ("temperature", True), "coldest": ("temperature", False), "newest": ("year", True),
}
NUMERIC_COLUMNS = sorted({c for c, _ in COMPARATIVES.values()}) + [
    "quantity", "rating", "salary", "total", "amount", "points", "stock", "level"]
TEXT_COLUMNS = ["name", "city", "country", "color", "status", "email", "title", "category", "type", "brand"]
COMMON_TABLES = ["products", "orders", "customers", "employees", "books", "cars", "cities", "students",
                 "movies", "invoices", "animals", "rooms", "ships", "rivers", "teams", "songs", "players",
                 "houses", "bridges", "flights"]

_TEMPLATE = """
a about above add after all also an and another any append are as ascending ask asked at average back be been
before begin below belongs better between both box brackets bring but by call called came can card change
choose chosen code column columns come contain contains containing content contents copy count create data day
decide delete descending different directory display distinct do does double down each earlier empty end ending
ends entries equal equals every everything exactly exceeds extension extract false fetch field fields file files
filled find first five folder following follows for format found four from get getting give given gives go goes
going good got greater group grouped had half has have having he her here highest him his how i if in insert
inside into is it item items its join just keep key keys know label largest last least left less like limit line
lines list listed little long look lower lowest made make many map match matching maximum may mean meaning means
member minimum missing more most move much must name named need needs never new next no none not note nothing
now null number numbers object of off on once one only or order ordered other out over pair part pick place
print put question quotes reach read record records remove rename repeat replace reply request result return
reverse right round row rows rule rules said same save say schema second see select sentence set seven she short
should show shows since single size smallest smaller so some something sort sorted sorting square start starting
starts step still subject such sum sums table tables tag take tell text than that the their them then there these
they thing things this those three time times to today together too top topic total true twice two type under
unique up update upper use using value values was we week well went were what when where which while who whole
whose why will with within without word words work wrap would write year yes you your zero label labels classify
category categories answer answers json topics today yesterday tomorrow morning evening night people talked
heard visited bought saw liked asked near old big small great nice really very always often again many
command query key under whose larger bigger than object outer list commas commas separated
dialect sql system user assistant older younger taller shorter heavier lighter cheaper costlier longer faster
slower wider narrower deeper warmer colder newer oldest youngest tallest shortest heaviest lightest cheapest
longest fastest slowest widest deepest warmest coldest newest most expensive price age height weight length speed
width depth temperature year quantity rating salary total amount points stock level city country color status
email title brand
""".split()
_CAPITAL = """
Find Show List Get Give Display Select Return Fetch Which What How Count Delete Remove Update Set Add Insert
Copy Move Rename Print Sort Replace Create Reply Answer Label Put Extract Classify The A All Use Schema Dialect
Rules Where Who Read Look Append Save Keep Make Repeat Write Choose Text Give Tell Return Wrap Search Change
Is In For Please I Subject Note
""".split()
# Words of the output languages.  The base meets them only as single words in
# copy and look-up tasks, so that their embeddings are trained, never in use.
OUTPUT_WORDS = """
SELECT FROM WHERE ORDER BY LIMIT COUNT AVG SUM MIN MAX GROUP DISTINCT AND OR NOT NULL IS LIKE BETWEEN IN DESC ASC
INSERT INTO VALUES UPDATE SET DELETE HAVING AS
ls cat head tail grep wc sort uniq cp mv rm mkdir touch find sed cut tr echo nl rev tac
true false null name type txt csv log md
""".split()

# Signs of the output languages, and the labels, one by one: a token that the base never writes has an embedding that no
# expert can tell from that of any other such token.
OUTPUT_SIGNS = ["(*)", "(*", "%", "'%'", "%'", '{"', '"}', '":', "\\", "]}"] + list(TOPICS)

# Other words of the templates, and words that SQLite reserves: never identifiers.
_TAKEN = """
abort absent action adds adj after all allow alter always analyze arrow attach avoid bare base before begin
begins biggest blank body build builds bytes capitals cascade case cast chain chat check choice col collate
collect cols column combine comma commit composed compute conflict constraint convert copying counts create
cross current database default deferrable deferred detach differ do draws drop each else end engine erase escape
everyone except exclude exclusive exists expected expert experts explain facts fail filter final first fits flip
following foreign form forms front full fuse generated glob greps groups having heads held high higher holds
home hunt if ignore ignoring immediate index indexed initially inner insert instead intersect into isnull join
joins junction keeps key kind known last lead left link listing lists lit loud low main match materialized
members message messages mixed mostly names natural no notation nothing notnull noun nth nulls of offset on ops
option others our ours outer output over owner partition parts pat peek per plain plan pragma preceding primary
private prompt pull python query quote raise random range rank rear recursive references regexp reindex release
rename repeats replace replaced replay requests restrict returning reverses right rollback row rows savepoint
seek set sets several shapes shell shift slice slot stands stars super swap table tails tally task temp
temporary test then ties to transaction trigger turn twin unbounded union unique unseen update using vacuum
values verb view virtual void want when where whether window with without wrapped
""".split()

FUNCTION_WORDS = {w.lower() for w in _TEMPLATE + _CAPITAL + OUTPUT_WORDS}
FUNCTION_WORDS |= {w for words in TOPICS.values() for w in words} | set(TOPICS)
FUNCTION_WORDS |= set(_TAKEN)
FUNCTION_WORDS |= set(NUMERIC_COLUMNS + TEXT_COLUMNS + COMMON_TABLES)
SPACED = sorted(set(_TEMPLATE)) + sorted({w for v in TOPICS.values() for w in v}) + \
    sorted(set(OUTPUT_WORDS)) + ["id"]
BARE = sorted(set(_TEMPLATE + _CAPITAL + OUTPUT_WORDS + NUMERIC_COLUMNS + TEXT_COLUMNS + COMMON_TABLES
                  + ["id", "user", "system", "assistant"]))
