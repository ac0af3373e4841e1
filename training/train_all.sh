#!/bin/sh
# The whole run, stage by stage; every stage resumes where it was interrupted.
#   BASE_MINUTES=55 FURTHER_MINUTES=70 EXPERT_MINUTES=9 sh train_all.sh
set -e
cd "$(dirname "$0")"
python=${PYTHON:-python3}
out=${OUT:-out}
export OMP_NUM_THREADS=1
$python train_base.py --out "$out/base" --minutes "${BASE_MINUTES:-55}" --procs 2
$python export.py base --checkpoint "$out/base/checkpoint.pt"
$python train_base.py --out "$out/base-2" --minutes "${FURTHER_MINUTES:-70}" --procs 2 --further ../models/base
$python export.py base --checkpoint "$out/base-2/checkpoint.pt"
expert() {
    $python train_expert.py "$1" --out "$out/experts" --minutes "$2" >> "$out/$1.log" 2>&1 &&
        $python export.py expert "$1" --from "$out/experts/$1"
}
# Two at a time, one thread each.
m=${EXPERT_MINUTES:-9}
(expert sql "$m" && expert jsonfmt "$m") & first=$!
(expert shell "$m" && expert json "$m" && expert classify "$(expr "$m" / 2 + 1)") & second=$!
wait $first
wait $second
$python evaluate.py run --out ../models/results.json      # answered by libexpert: needs its Python module
$python cards.py
